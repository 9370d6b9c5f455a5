//! A real browser that shows the example page.

use axum::extract::State;
use axum::response::Html;
use axum::routing::{get, post};
use axum::{Json, Router};
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::Value;
use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

const EXAMPLE: &str = include_str!("../../../../examples/browser/index.html");
const WATCH: &str = include_str!("watch.html");
/// What it may be called.
const NAMES: &[&str] = &["chromium", "chromium-browser", "google-chrome"];

/// A browser, and the server of its pages.
#[derive(Debug)]
pub(crate) struct Browser {
    child: Child,
    desk: Arc<Desk>,
    reports: mpsc::Receiver<Value>,
    serving: JoinHandle<()>,
}

/// What lies between the test and the page.
#[derive(Debug)]
struct Desk {
    job: Mutex<Option<Value>>,
    reports: mpsc::Sender<Value>,
}

impl Browser {
    /// Starts it, with its profile in a directory.
    ///
    /// # Panics
    ///
    /// Panics if there is none: it is a part of the test.
    pub(crate) async fn start(dir: &Path) -> Self {
        let (sender, reports) = mpsc::channel(1);
        let desk = Arc::new(Desk { job: Mutex::default(), reports: sender });
        let routes = Router::new()
            .route("/", get(|| async { Html(WATCH) }))
            .route("/index.html", get(|| async { Html(EXAMPLE) }))
            .route("/job", get(take_job))
            .route("/report", post(take_report))
            .layer(axum::extract::DefaultBodyLimit::disable())
            .with_state(Arc::clone(&desk));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let serving = tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
        let child = start(dir, &url);
        Self { child, desk, reports, serving }
    }

    /// Lets it show sessions; returns what it showed when all have come to their end.
    pub(crate) async fn show(&mut self, job: Value) -> Value {
        *self.desk.job.lock().unwrap() = Some(job);
        self.reports.recv().await.unwrap()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        self.serving.abort();
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid {
            let _gone_already = kill_process_group(pid, Signal::KILL);
        }
        drop(self.child.wait());
    }
}

async fn take_job(State(desk): State<Arc<Desk>>) -> Json<Value> {
    Json(desk.job.lock().unwrap().take().unwrap_or(Value::Null))
}

async fn take_report(State(desk): State<Arc<Desk>>, Json(report): Json<Value>) {
    desk.reports.send(report).await.unwrap();
}

fn start(dir: &Path, url: &str) -> Child {
    let named = std::env::var("AX_CHROMIUM").ok();
    let names = named.as_deref().map_or_else(|| NAMES.to_vec(), |name| vec![name]);
    for name in names {
        let started = Command::new(name)
            .args(["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"])
            .args(["--no-first-run", "--disable-background-networking", "--disable-sync"])
            .args(["--disable-component-update", "--disable-background-timer-throttling"])
            .args(["--disable-renderer-backgrounding", "--remote-debugging-port=0"])
            .arg(format!("--user-data-dir={}", dir.join("profile").display()))
            .arg(url)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(dir.join("browser.err")).unwrap())
            .process_group(0)
            .spawn();
        if let Ok(child) = started {
            return child;
        }
    }
    panic!("no browser: install chromium (Debian: apt install chromium), or name it by AX_CHROMIUM")
}
