//! `hasp acl`: shows or changes which ACL files guard a node. Who is in them is for `hasp cat` and
//! `hasp put` of `/ls/<namespace>/acl/NAME`.

use hasp_client::{AclNames, CallError, Client, ErrorCode, Generation, Handle, Name, OpenOptions};
use serde::Serialize;

use crate::context::{ConnectArgs, Context, parse_name};
use crate::exit::{Exit, Failure};
use crate::format::{Acls, columns, print, print_json};

/// Options of `hasp acl`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Which node, as in /ls/dev/services
    name: String,

    /// Let the principals of this ACL read
    #[arg(long, value_name = "ACL")]
    set_read: Option<String>,

    /// Let the principals of this ACL write and lock
    #[arg(long, value_name = "ACL")]
    set_write: Option<String>,

    /// Let the principals of this ACL change these names
    #[arg(long, value_name = "ACL")]
    set_change: Option<String>,

    /// Change only if this is the ACL generation
    #[arg(long, value_name = "G")]
    if_generation: Option<u64>,

    #[command(flatten)]
    connect: ConnectArgs,
}

/// The names and their generation.
#[derive(Debug, PartialEq, Eq)]
struct Guarded {
    acls: AclNames,
    acl_generation: Generation,
}

/// Runs the command.
pub async fn run(args: Args, ctx: &Context) -> Exit {
    show_or_change(&args, ctx).await.into()
}

async fn show_or_change(args: &Args, ctx: &Context) -> Result<(), Failure> {
    let name = parse_name(&args.name)?;
    if args.if_generation.is_some() && !args.changes() {
        return Err(Failure::Usage(
            "--if-generation goes with --set-read, --set-write or --set-change".into(),
        ));
    }
    let connect = &args.connect;
    let guarded = connect
        .with_client(ctx, async |client| {
            if args.changes() {
                change(args, client, &name).await
            } else {
                show(connect, client, &name).await
            }
        })
        .await?;
    if connect.json { print_object(&name, &guarded) } else { print_lines(&guarded) }
}

impl Args {
    const fn changes(&self) -> bool {
        self.set_read.is_some() || self.set_write.is_some() || self.set_change.is_some()
    }

    /// The three names as they are to be.
    fn over(&self, names: AclNames) -> AclNames {
        AclNames {
            read: self.set_read.clone().unwrap_or(names.read),
            write: self.set_write.clone().unwrap_or(names.write),
            change: self.set_change.clone().unwrap_or(names.change),
        }
    }
}

async fn show(connect: &ConnectArgs, client: &Client, name: &Name) -> Result<Guarded, Failure> {
    let stat = connect.call(client.open(name, OpenOptions::read())).await?.stat;
    Ok(Guarded { acls: stat.acls, acl_generation: stat.acl_generation })
}

async fn change(args: &Args, client: &Client, name: &Name) -> Result<Guarded, Failure> {
    let changing = async {
        let opened = client.open(name, OpenOptions::change_acl()).await?;
        let mut known = Guarded { acls: opened.stat.acls, acl_generation: opened.stat.acl_generation };
        loop {
            match replace(args, &opened.handle, known).await {
                // Somebody else was faster: those names that are not ours to set may be others by now.
                Err(error) if is_overtaken(args, &error) => {
                    let stat = opened.handle.get_stat().await?.stat;
                    known = Guarded { acls: stat.acls, acl_generation: stat.acl_generation };
                }
                replaced => return replaced,
            }
        }
    };
    args.connect.call(changing).await
}

/// Replaces the names, on condition that they are those that are known, or as asked.
async fn replace(args: &Args, handle: &Handle, known: Guarded) -> Result<Guarded, CallError> {
    let acls = args.over(known.acls);
    let condition = args.if_generation.map_or(known.acl_generation, Generation);
    let set = handle.set_acl(acls.clone(), Some(condition)).await?;
    Ok(Guarded { acls, acl_generation: set.acl_generation })
}

fn is_overtaken(args: &Args, error: &CallError) -> bool {
    args.if_generation.is_none() && error.code == ErrorCode::GenerationMismatch
}

fn print_object(name: &Name, guarded: &Guarded) -> Result<(), Failure> {
    #[derive(Serialize)]
    struct Object<'a> {
        name: &'a str,
        acl_generation: u64,
        acls: Acls<'a>,
    }
    let acls = Acls::new(&guarded.acls);
    print_json(&Object { name: name.as_str(), acl_generation: guarded.acl_generation.0, acls })
}

fn print_lines(guarded: &Guarded) -> Result<(), Failure> {
    let AclNames { read, write, change } = &guarded.acls;
    let generation = guarded.acl_generation.to_string();
    let rows = [("read", read), ("write", write), ("change", change), ("generation", &generation)];
    print(columns(&rows.map(|(field, value)| vec![field.to_owned(), value.clone()])).as_bytes())
}
