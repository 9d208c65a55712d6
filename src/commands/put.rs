//! `hasp put`: writes a file as a whole, perhaps only if it has not changed, perhaps for as long as it runs.

mod hold;

use std::io::{self, Read as _};

use bytes::Bytes;
use hasp_client::{
    CONTENTS_BYTES_MAX, CallError, Client, ErrorCode, Generation, Name, OpenOptions, Opened, Stat, Written,
};
use serde::Serialize;

use crate::acls::AclArgs;
use crate::context::{ConnectArgs, Context, parse_name};
use crate::exit::{Exit, Failure};
use crate::format::print_json;
use crate::held;

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

    /// Create an ephemeral file and keep it until this is stopped: it goes when nobody holds it any more
    #[arg(long)]
    hold: bool,

    #[command(flatten)]
    acls: AclArgs,

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
    match put(&args, ctx).await {
        Ok(exit) => exit,
        Err(failure) => failure.into(),
    }
}

async fn put(args: &Args, ctx: &Context) -> Result<Exit, Failure> {
    let name = parse_name(&args.name)?;
    let contents = contents(args.value.as_deref())?;
    let connect = &args.connect;
    connect
        .with_client(ctx, async |client| {
            let writing = Writing { args, client, name: &name, contents };
            if args.hold { hold::put(writing).await } else { writing.put().await.map(|_| Exit::Done) }
        })
        .await
}

/// Reads no more of stdin than shows that it is too much. Nothing else runs meanwhile.
fn contents(value: Option<&str>) -> Result<Bytes, Failure> {
    let contents = match value {
        Some(value) if value != "-" => value.as_bytes().to_vec(),
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

/// What is to be written, and where.
struct Writing<'a> {
    args: &'a Args,
    client: &'a Client,
    name: &'a Name,
    contents: Bytes,
}

impl<'a> Writing<'a> {
    /// Writes, and tells what was done if that is asked for. Gives what was opened.
    async fn put(self) -> Result<Opened, Failure> {
        let connect = &self.args.connect;
        let (opened, put) = match self.args.if_generation {
            None => self.write().await?,
            Some(0) => self.create().await?,
            Some(generation) => self.replace(Generation(generation)).await?,
        };
        if connect.json {
            print_json(&put)?;
        }
        Ok(opened)
    }

    /// Writes whatever is there now.
    async fn write(self) -> Result<(Opened, Put<'a>), Failure> {
        let options = self.creating().await?;
        let opened = self.args.connect.call(self.client.open(self.name, options)).await?;
        if opened.created {
            let put = Put::created(self.name, &opened.stat, self.contents.len());
            return Ok((opened, put));
        }
        self.overwrite(opened, None).await
    }

    /// Writes if there is no such file: its generation is 0, so to say.
    async fn create(self) -> Result<(Opened, Put<'a>), Failure> {
        let options = self.creating().await?.must_create();
        let opening = async {
            let exists = |error: CallError| mismatch(error, &ErrorCode::AlreadyExists, "it exists, so not 0");
            self.client.open(self.name, options).await.map_err(exists)
        };
        let opened = self.args.connect.call(opening).await?;
        let put = Put::created(self.name, &opened.stat, self.contents.len());
        Ok((opened, put))
    }

    /// Writes if the generation is the current one. A file that is gone has none.
    async fn replace(self, generation: Generation) -> Result<(Opened, Put<'a>), Failure> {
        let opening = async {
            let missing = |error: CallError| mismatch(error, &ErrorCode::NotFound, "there is no such file");
            self.client.open(self.name, self.watched(OpenOptions::write())).await.map_err(missing)
        };
        let opened = self.args.connect.call(opening).await?;
        self.overwrite(opened, Some(generation)).await
    }

    /// Writes to a file that existed, unless it is not what it is taken for.
    async fn overwrite(
        self,
        opened: Opened,
        if_generation: Option<Generation>,
    ) -> Result<(Opened, Put<'a>), Failure> {
        self.args.acls.check(self.name, &opened)?;
        if self.args.hold && !opened.stat.ephemeral {
            let name = self.name;
            return Err(Failure::Refused(format!("AlreadyExists: {name} is permanent and would stay")));
        }
        let length = self.contents.len();
        let writing = async {
            let deleted =
                |error: CallError| mismatch(error, &ErrorCode::StaleHandle, "it was deleted meanwhile");
            let written = opened.handle.set_contents(self.contents, if_generation).await;
            if if_generation.is_some() { written.map_err(deleted) } else { written }
        };
        let written = self.args.connect.call(writing).await?;
        let put = Put::replaced(self.name, &opened.stat, &written, length);
        Ok((opened, put))
    }

    /// How the file is created if it is missing.
    async fn creating(&self) -> Result<OpenOptions, Failure> {
        let options = self.watched(OpenOptions::create_file(self.contents.clone()));
        let options = if self.args.hold { options.ephemeral() } else { options };
        self.args.acls.apply(&self.args.connect, self.client, self.name, options).await
    }

    fn watched(&self, options: OpenOptions) -> OpenOptions {
        if self.args.hold { options.events(held::events()) } else { options }
    }
}

/// Tells one error as what it means to who gave a generation.
fn mismatch(error: CallError, code: &ErrorCode, why: &str) -> CallError {
    if error.code == *code {
        let detail = format!("{why} ({})", error.detail);
        return CallError { code: ErrorCode::GenerationMismatch, detail, ..error };
    }
    error
}
