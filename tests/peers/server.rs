//! A server that imitates AWS, and the AWS CLI on it.

use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::variables;

/// A running server; it stops when this is dropped.
pub struct Server {
    process: Child,
    /// Its address.
    pub endpoint: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Server {
    /// Starts it on a free port, and waits until it answers.
    pub fn start(command: impl FnOnce(u16) -> Command) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut command = command(port);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let process = command.spawn().unwrap();
        let server = Self { process, endpoint: format!("http://127.0.0.1:{port}") };
        let started = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(started.elapsed() < Duration::from_secs(60), "{command:?} does not start");
            std::thread::sleep(Duration::from_millis(100));
        }
        server
    }

    /// Credentials for it, and its address.
    pub fn environment(&self) -> Vec<(String, String)> {
        variables(&[
            ("AWS_ACCESS_KEY_ID", "test"),
            ("AWS_SECRET_ACCESS_KEY", "test"),
            ("AWS_REGION", "us-east-1"),
            ("AWS_DEFAULT_REGION", "us-east-1"),
            ("AWS_ENDPOINT_URL", &self.endpoint),
        ])
    }

    /// What the AWS CLI says.
    pub fn aws(&self, arguments: &[&str]) -> String {
        let result = Command::new("aws")
            .args(arguments)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("PYENV_ROOT", std::env::var_os("PYENV_ROOT").unwrap_or_default())
            .env("HOME", std::env::temp_dir())
            .envs(self.environment())
            .output()
            .unwrap();
        assert!(
            result.status.success(),
            "{arguments:?}: {}",
            String::from_utf8_lossy(&result.stderr)
        );
        String::from_utf8(result.stdout).unwrap().trim().to_owned()
    }
}
