//! `hasp mkdir`: creates a directory.

use hasp_client::{Client, Name, NodeKind, OpenOptions, Opened};
use serde::Serialize;

use crate::acls::AclArgs;
use crate::context::{ConnectArgs, Context, parse_name};
use crate::exit::{Exit, Failure};
use crate::format::print_json;

/// Options of `hasp mkdir`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Which directory, as in /ls/dev/services
    name: String,

    /// Create missing parents too; no error if it exists
    #[arg(short, long)]
    parents: bool,

    #[command(flatten)]
    acls: AclArgs,

    #[command(flatten)]
    connect: ConnectArgs,
}

#[derive(Serialize)]
struct Made<'a> {
    name: &'a str,
    created: bool,
    instance: u64,
}

/// Runs the command.
pub async fn run(args: Args, ctx: &Context) -> Exit {
    make(&args, ctx).await.into()
}

async fn make(args: &Args, ctx: &Context) -> Result<(), Failure> {
    let name = parse_name(&args.name)?;
    let connect = &args.connect;
    let opened = connect
        .with_client(ctx, async |client| {
            if args.parents {
                make_with_parents(args, client, &name).await
            } else {
                let options = OpenOptions::create_directory().must_create();
                let options = args.acls.apply(connect, client, &name, options).await?;
                connect.call(client.open(&name, options)).await
            }
        })
        .await?;
    if connect.json {
        let (created, instance) = (opened.created, opened.stat.instance.0);
        print_json(&Made { name: name.as_str(), created, instance })?;
    }
    Ok(())
}

/// The ACL names are for the last of them.
async fn make_with_parents(args: &Args, client: &Client, name: &Name) -> Result<Opened, Failure> {
    let connect = &args.connect;
    let mut opened = None;
    for directory in lineage(name) {
        let mut options = OpenOptions::create_directory();
        if directory == *name {
            options = args.acls.apply(connect, client, name, options).await?;
        }
        let step = connect.call(client.open(&directory, options)).await?;
        if step.stat.kind == NodeKind::File {
            return Err(Failure::Refused(format!("NotADirectory: {directory} is a file")));
        }
        opened = Some(step);
    }
    let opened = opened.expect("a name is in its own lineage");
    args.acls.check(name, &opened)?;
    Ok(opened)
}

/// The directories to make, from the top; without the namespace's root, which is always there,
/// unless it is what is asked for.
fn lineage(name: &Name) -> Vec<Name> {
    let mut lineage: Vec<_> = std::iter::successors(Some(name.clone()), Name::parent).collect();
    if lineage.len() > 1 {
        lineage.pop();
    }
    lineage.reverse();
    lineage
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parents_come_first_and_the_namespace_is_left_out() {
        let check = |name: &str, expected: &[&str]| {
            let lineage = lineage(&Name::parse(name).unwrap());
            assert_eq!(lineage.iter().map(Name::as_str).collect::<Vec<_>>(), expected);
        };
        check("/ls/dev/a/b", &["/ls/dev/a", "/ls/dev/a/b"]);
        check("/ls/dev/a", &["/ls/dev/a"]);
        check("/ls/dev", &["/ls/dev"]);
    }
}
