//! The inputs that are part of the tree: `proto/fuzz/corpus/<target>/<name>`.

#![allow(
    clippy::disallowed_methods,
    reason = "the corpus is real files in the tree, which nothing simulates"
)]

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::campaign::Crash;
use crate::target::Target;

/// One input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Input {
    /// Of its file. Names that begin with `seed-` are of inputs that the target takes.
    pub name: String,
    /// The file's contents.
    pub bytes: Vec<u8>,
}

/// A target's directory.
pub fn dir(target: &Target) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target.name)
}

/// All inputs of a target, by name. None if it has no directory.
///
/// # Errors
/// A file cannot be read.
pub fn read(target: &Target) -> anyhow::Result<Vec<Input>> {
    let dir = dir(target);
    let mut inputs = Vec::new();
    if !dir.exists() {
        return Ok(inputs);
    }
    for entry in fs::read_dir(&dir).with_context(|| format!("list {}", dir.display()))? {
        let path = entry.with_context(|| format!("list {}", dir.display()))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let bytes = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        inputs.push(Input { name, bytes });
    }
    inputs.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(inputs)
}

/// Puts an input into a target's directory, and says where.
///
/// # Errors
/// The file cannot be written.
pub fn write(target: &Target, input: &Input) -> anyhow::Result<PathBuf> {
    let dir = dir(target);
    fs::create_dir_all(&dir).with_context(|| format!("make {}", dir.display()))?;
    let path = dir.join(&input.name);
    fs::write(&path, &input.bytes).with_context(|| format!("write {}", path.display()))?;
    Ok(path)
}

/// A crash as an input of the corpus, named after what the panic said.
pub fn input_of(crash: &Crash) -> Input {
    let words: String =
        crash.message.chars().map(|char| if char.is_ascii_alphabetic() { char } else { ' ' }).collect();
    let words: Vec<_> = words.split_whitespace().take(6).map(str::to_lowercase).collect();
    let hash = hasp_proto::node::checksum(&crash.input);
    Input { name: format!("crash-{}-{:08x}", words.join("-"), hash as u32), bytes: crash.input.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crash_is_named_after_what_it_said() {
        let crash = Crash { input: vec![1, 2], message: "index 7 out of \"bounds\"!".to_owned() };

        let input = input_of(&crash);

        assert!(input.name.starts_with("crash-index-out-of-bounds-"), "{}", input.name);
        assert_eq!(input.bytes, [1, 2]);
    }
}
