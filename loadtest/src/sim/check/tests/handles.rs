//! Of `handles`.

use hasp_proto::error::ErrorCode;

use super::*;

#[test]
fn a_handle_that_is_called_stale_while_its_node_is_there_is_seen() {
    let refused = |instance| {
        let mut call = read(1, (12, 13), 15, 10, "a");
        call.told.as_mut().unwrap().result = Err(ErrorCode::StaleHandle);
        Asked { instance: Some(Instance(instance)), ..call }
    };

    assert_eq!(found(file(), vec![refused(7)]), Vec::<String>::new(), "an earlier node of that name");

    finds(file(), vec![refused(1)], "P-HANDLE: Read of");
}
