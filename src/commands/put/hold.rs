//! `hasp put --hold`: an ephemeral file that is there for as long as somebody holds it.

use super::Writing;
use crate::child::{Signals, code_of};
use crate::exit::{Exit, Failure};
use crate::format::print;
use crate::held::{Held, Watch};

/// Writes, says so, and waits for a signal or for the loss of the file.
pub(super) async fn put(writing: Writing<'_>) -> Result<Exit, Failure> {
    let (args, client) = (writing.args, writing.client);
    let mut signals = Signals::take().map_err(|error| Failure::local("take signals", error))?;
    let opened = tokio::select! {
        biased;
        // What was created meanwhile goes with the session.
        signal = signals.next() => return Ok(Exit::Code(code_of(signal))),
        opened = writing.put() => opened?,
    };
    let cell = opened.position.as_ref().map(|position| position.cell.clone());
    let mut watch = Watch::over(Held::Handle, client, &opened.handle, cell);
    if !args.connect.json {
        print(format!("holding {}\n", opened.handle.name()).as_bytes())?;
    }
    tokio::select! {
        biased;
        why = watch.lost() => Err(why),
        _ = signals.next() => Ok(Exit::Done),
    }
}
