//! A cell of one replica in a process of its own, that can be killed and started again on its data.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "real files and ports are the point")]
#![allow(dead_code, reason = "each file of tests uses a part of it")]

use hasp_loadtest::ports::free_ports;

use super::system::{Running, hasp};

/// The cell, serving.
pub struct OneCell {
    dir: tempfile::TempDir,
    address: String,
    running: Running,
}

/// A proxy, serving. Killed if dropped.
pub struct OneProxy {
    /// Where clients connect.
    pub address: String,
    /// Where it shows its metrics.
    pub admin: String,
    /// Its process.
    pub running: Running,
}

impl OneCell {
    /// Founds it.
    pub async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let address = format!("127.0.0.1:{}", free_ports(1).unwrap()[0]);
        let data = dir.path().join("data");
        let text = format!(
            "cell = \"a\"\nid = 1\nlisten = \"{address}\"\ndir = \"{}\"\nnamespace = \"dev\"\n\n\
             [[rules]]\nprefix = \"/ls/dev\"\ncell = \"a\"\n\n[cells]\na = [\"{address}\"]\n",
            data.display()
        );
        std::fs::write(dir.path().join("cell.toml"), text).unwrap();
        let running = serve(&dir).await;
        Self { dir, address, running }
    }

    /// Starts a proxy of this name, behind these or, if there are none, before the cell; and waits until it serves.
    pub async fn start_proxy(&self, name: &str, upstream: &[&str]) -> OneProxy {
        let file = self.dir.path().join(format!("{name}.toml"));
        let text = format!(
            "listen = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"\nupstream = {upstream:?}\nnamespace = \"dev\"\n\n\
             [[rules]]\nprefix = \"/ls/dev\"\ncell = \"a\"\n\n[cells]\na = [\"{}\"]\n",
            self.address
        );
        std::fs::write(&file, text).unwrap();
        let mut command = hasp();
        command.arg("proxy").arg("--config").arg(&file);
        let mut running = Running::start(command);
        let line = running.line().await;
        let word = |key| line.split(' ').find_map(|word| word.strip_prefix(key)).expect(&line).to_owned();
        OneProxy { address: word("connect="), admin: word("admin="), running }
    }

    /// Kills it and starts it again: its master has another epoch then.
    pub async fn fail_over(&mut self) {
        self.running.kill().await;
        self.running = serve(&self.dir).await;
    }

    /// Starts a command against it.
    pub fn spawn(&self, line: &str) -> Running {
        let mut command = hasp();
        command.env("HASP_CONNECT", &self.address).args(line.split(' '));
        Running::start(command)
    }

    /// Runs a command against it, and checks that all went well.
    pub async fn run(&self, line: &str) {
        assert_eq!(self.spawn(line).code().await, 0, "{line}");
    }
}

async fn serve(dir: &tempfile::TempDir) -> Running {
    let mut command = hasp();
    command.arg("cell").arg("--config").arg(dir.path().join("cell.toml"));
    let mut running = Running::start(command);
    assert!(running.line().await.starts_with("ready connect="));
    running
}
