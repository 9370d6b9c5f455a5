//! nginx as a plain reverse proxy in front of the model.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tokio::time::sleep;

/// nginx, and where it is.
#[derive(Debug)]
pub(super) struct Nginx {
    child: Child,
    /// Host and port.
    pub(super) address: String,
}

impl Nginx {
    /// Starts it with a configuration of our own: no logs, no buffering, connections that stay.
    pub(super) async fn start(program: &Path, dir: &Path, model: &str) -> Self {
        // It does not say which port it took: this one was free just now.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let address = format!("127.0.0.1:{port}");
        let config = dir.join("nginx.conf");
        std::fs::write(&config, configuration(dir, &address, model)).unwrap();
        let child = Command::new(program)
            .arg("-p")
            .arg(dir)
            .arg("-c")
            .arg(&config)
            .args(["-e", "stderr"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let nginx = Self { child, address };
        while tokio::net::TcpStream::connect(&nginx.address).await.is_err() {
            sleep(Duration::from_millis(5)).await;
        }
        nginx
    }

    /// The processes: the one that was started, and its workers.
    pub(super) fn processes(&self) -> Vec<u32> {
        let own = self.child.id();
        let path = format!("/proc/{own}/task/{own}/children");
        let workers = std::fs::read_to_string(path).unwrap();
        let workers = workers.split_whitespace().map(|word| word.parse().unwrap());
        std::iter::once(own).chain(workers).collect()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // Its workers end with it: SIGTERM would do the same, but there is no safe call for it.
        for worker in self.processes().into_iter().rev() {
            drop(Command::new("kill").arg(worker.to_string()).status());
        }
        drop(self.child.wait());
    }
}

fn configuration(dir: &Path, address: &str, model: &str) -> String {
    let dir = dir.display();
    format!(
        "daemon off;
worker_processes 1;
pid {dir}/nginx.pid;
error_log stderr;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_body_temp_path {dir}/nginx-body;
    proxy_temp_path {dir}/nginx-proxy;
    fastcgi_temp_path {dir}/nginx-fastcgi;
    uwsgi_temp_path {dir}/nginx-uwsgi;
    scgi_temp_path {dir}/nginx-scgi;
    client_body_buffer_size 1m;
    client_max_body_size 32m;
    keepalive_requests 10000000;
    upstream model {{ server {model}; keepalive 64; keepalive_requests 10000000; }}
    server {{
        listen {address};
        location / {{
            proxy_pass http://model;
            proxy_http_version 1.1;
            proxy_set_header Connection \"\";
            proxy_buffering off;
        }}
    }}
}}
"
    )
}
