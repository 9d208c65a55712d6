//! The root of a namespace, as something to open names relative to, and names relative to others.

use hasp_proto::error::ErrorCode;
use hasp_proto::name::{Name, NameError};

use crate::client::Client;
use crate::error::CallError;
use crate::handle::Opened;
use crate::open::OpenOptions;

/// The namespace that stands for the first host's own.
const LOCAL: &str = "/ls/local";

/// The root directory of the first host's namespace: like a handle on it that is always valid.
#[derive(Clone)]
pub struct Root {
    client: Client,
    name: Name,
}

impl Root {
    pub(crate) fn new(client: Client) -> Self {
        Self { client, name: Name::parse(LOCAL).expect("a good name") }
    }

    /// `/ls/local`.
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// Opens a node below: `a/b`.
    ///
    /// # Errors
    /// As [`Client::open`].
    pub async fn open(&self, relative: &str, options: OpenOptions) -> Result<Opened, CallError> {
        self.client.open(below(&self.name, relative)?, options).await
    }
}

/// The name of a node below a directory: `a/b`.
pub(crate) fn below(directory: &Name, relative: &str) -> Result<Name, CallError> {
    if relative.starts_with('/') {
        let detail = format!("{relative} is not relative to {directory}: it begins with a slash");
        return Err(CallError::local(ErrorCode::InvalidName, detail));
    }
    let child = |directory: Name, component: &str| -> Result<Name, NameError> { directory.child(component) };
    relative.split('/').try_fold(directory.clone(), child).map_err(CallError::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relative_name_is_below_its_directory_and_nowhere_else() {
        let directory = Name::parse("/ls/dev/d").unwrap();
        let name = |relative: &str| below(&directory, relative).map(|name| name.to_string());
        let refused = |relative: &str| name(relative).map_err(|error| error.code);

        assert_eq!(name("a"), Ok("/ls/dev/d/a".into()));
        assert_eq!(name("a/b"), Ok("/ls/dev/d/a/b".into()));
        for bad in ["", "/a", "a/", "a//b", "..", "../x", "a/../../x", "."] {
            assert_eq!(refused(bad), Err(ErrorCode::InvalidName), "{bad:?}");
        }
    }
}
