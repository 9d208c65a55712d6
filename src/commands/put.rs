//! `hasp put`: writes a file as a whole, perhaps only if it has not changed.

use std::io::{self, Read as _};

use bytes::Bytes;
use hasp_client::{
    CONTENTS_BYTES_MAX, CallError, Client, ErrorCode, Generation, Name, OpenOptions, Stat, Written,
};
use serde::Serialize;

use crate::context::{ConnectArgs, Context, parse_name};
use crate::exit::{Exit, Failure};
use crate::format::print_json;

/// Options of `hasp put`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Which file, as in /ls/dev/services/web; its directory must exist
    name: String,

    /// What to write; read from stdin if it is missing or -
    #[arg(allow_negative_numbers = true)]
    value: Option<String>,

    /// Write only if this is the content generation; 0: only if there is no such file
    #[arg(long, value_name = "G")]
    if_generation: Option<u64>,

    #[command(flatten)]
    connect: ConnectArgs,
}

/// What was done.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Put<'a> {
    name: &'a str,
    created: bool,
    instance: u64,
    content_generation: u64,
    /// Of the contents replaced; nothing if the file was created.
    previous_generation: Option<u64>,
    length: usize,
}

impl<'a> Put<'a> {
    fn created(name: &'a Name, stat: &Stat, length: usize) -> Self {
        Self {
            name: name.as_str(),
            created: true,
            instance: stat.instance.0,
            content_generation: stat.content_generation.0,
            previous_generation: None,
            length,
        }
    }

    fn replaced(name: &'a Name, stat: &Stat, written: &Written, length: usize) -> Self {
        Self {
            name: name.as_str(),
            created: false,
            instance: stat.instance.0,
            content_generation: written.content_generation.0,
            previous_generation: Some(written.previous_generation.0),
            length,
        }
    }
}

/// Runs the command.
pub async fn run(args: Args, ctx: &Context) -> Exit {
    put(args, ctx).await.into()
}

async fn put(args: Args, ctx: &Context) -> Result<(), Failure> {
    let name = parse_name(&args.name)?;
    let contents = contents(args.value)?;
    let connect = &args.connect;
    let put = connect
        .with_client(ctx, async |client| match args.if_generation {
            None => write(connect, client, &name, contents).await,
            Some(0) => create(connect, client, &name, contents).await,
            Some(generation) => replace(connect, client, &name, contents, Generation(generation)).await,
        })
        .await?;
    if connect.json {
        print_json(&put)?;
    }
    Ok(())
}

/// Reads no more of stdin than shows that it is too much. Nothing else runs meanwhile.
fn contents(value: Option<String>) -> Result<Bytes, Failure> {
    let contents = match value {
        Some(value) if value != "-" => value.into_bytes(),
        _ => {
            let mut read = Vec::new();
            let mut stdin = io::stdin().lock().take(CONTENTS_BYTES_MAX as u64 + 1);
            stdin.read_to_end(&mut read).map_err(|error| Failure::local("read stdin", error))?;
            read
        }
    };
    if contents.len() > CONTENTS_BYTES_MAX {
        let text = format!("TooLarge: a file holds at most {CONTENTS_BYTES_MAX} bytes");
        return Err(Failure::Refused(text));
    }
    Ok(contents.into())
}

/// Writes whatever is there now.
async fn write<'a>(
    connect: &ConnectArgs,
    client: &Client,
    name: &'a Name,
    contents: Bytes,
) -> Result<Put<'a>, Failure> {
    let length = contents.len();
    let options = OpenOptions::create_file(contents.clone());
    let opened = connect.call(client.open(name, options)).await?;
    if opened.created {
        return Ok(Put::created(name, &opened.stat, length));
    }
    let written = connect.call(opened.handle.set_contents(contents, None)).await?;
    Ok(Put::replaced(name, &opened.stat, &written, length))
}

/// Writes if there is no such file: its generation is 0, so to say.
async fn create<'a>(
    connect: &ConnectArgs,
    client: &Client,
    name: &'a Name,
    contents: Bytes,
) -> Result<Put<'a>, Failure> {
    let length = contents.len();
    let options = OpenOptions::create_file(contents).must_create();
    let opening = async {
        let exists = |error: CallError| mismatch(error, &ErrorCode::AlreadyExists, "it exists, so not 0");
        client.open(name, options).await.map_err(exists)
    };
    let opened = connect.call(opening).await?;
    Ok(Put::created(name, &opened.stat, length))
}

/// Writes if the generation is the current one. A file that is gone has none.
async fn replace<'a>(
    connect: &ConnectArgs,
    client: &Client,
    name: &'a Name,
    contents: Bytes,
    generation: Generation,
) -> Result<Put<'a>, Failure> {
    let length = contents.len();
    let writing = async {
        let missing = |error: CallError| mismatch(error, &ErrorCode::NotFound, "there is no such file");
        let deleted = |error: CallError| mismatch(error, &ErrorCode::StaleHandle, "it was deleted meanwhile");
        let opened = client.open(name, OpenOptions::write()).await.map_err(missing)?;
        let written = opened.handle.set_contents(contents, Some(generation)).await.map_err(deleted)?;
        Ok((opened.stat, written))
    };
    let (stat, written) = connect.call(writing).await?;
    Ok(Put::replaced(name, &stat, &written, length))
}

/// Tells one error as what it means to who gave a generation.
fn mismatch(error: CallError, code: &ErrorCode, why: &str) -> CallError {
    if error.code == *code {
        let detail = format!("{why} ({})", error.detail);
        return CallError { code: ErrorCode::GenerationMismatch, detail, ..error };
    }
    error
}
