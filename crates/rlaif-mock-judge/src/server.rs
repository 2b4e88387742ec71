//! The server: routes, connections, and the handle that tests hold.

use crate::ask::Provider;
use crate::batch::{self, Batches};
use crate::call::{Core, Incoming};
use crate::chaos::Chaos;
use crate::connection::{Connection, Stream, reset_on_close};
use crate::ledger::{Ledger, LedgerError, Summary};
use crate::limits::Limits;
use crate::options::{Options, OptionsError};
use crate::wire::{ApiError, not_found};
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, Extension, Path, RawQuery, State};
use axum::http::{HeaderMap, Request, Response, StatusCode, Uri};
use axum::response::IntoResponse;
use axum::routing::{get, post};
use axum::{Json, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use rand::RngExt;
use serde_json::json;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tower::ServiceExt;

/// Largest body of a single call: Anthropic's limit.
const MAX_CALL: usize = 32 << 20;

/// Connections that may wait to be accepted: thousands of clients may come at once.
const BACKLOG: u32 = 16_384;

/// A mock judge that is running. It stops when this is dropped.
#[derive(Debug)]
pub struct MockJudge {
    address: SocketAddr,
    core: Arc<Core>,
    running: Running,
}

#[derive(Debug)]
enum Running {
    /// On the runtime of whoever started it.
    Task(AbortHandle),
    /// On a thread of its own, which ends when the sender is dropped.
    Thread(Option<tokio::sync::oneshot::Sender<()>>, Option<std::thread::JoinHandle<()>>),
}

/// Why a mock judge did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The options cannot be followed.
    #[error(transparent)]
    Options(#[from] OptionsError),
    /// The ledger's file cannot be used.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The address is taken, or the system refuses.
    #[error("cannot listen on `{address}`")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// No thread or runtime could be made.
    #[error("the mock judge's thread could not start")]
    Thread(#[source] std::io::Error),
}

impl MockJudge {
    /// Starts on the current tokio runtime.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start(options: Options) -> Result<Self, StartError> {
        let (core, listener, address) = prepare(options)?;
        let task = tokio::spawn(accept(Arc::clone(&core), listener));
        Ok(Self { address, core, running: Running::Task(task.abort_handle()) })
    }

    /// Starts on a thread and a runtime of its own: for tests that are not async, or that block theirs.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn start_on_thread(options: Options) -> Result<Self, StartError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(StartError::Thread)?;
        let (core, listener, address) = {
            let _inside = runtime.enter();
            prepare(options)?
        };
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let serving = Arc::clone(&core);
        let work = move || {
            runtime.block_on(async {
                tokio::select! {
                    () = accept(serving, listener) => {}
                    _ = stopped => {}
                }
            });
        };
        let thread = std::thread::Builder::new().name("mock-judge".into()).spawn(work);
        let thread = thread.map_err(StartError::Thread)?;
        Ok(Self { address, core, running: Running::Thread(Some(stop), Some(thread)) })
    }

    /// `http://127.0.0.1:PORT`: the base of Anthropic's paths (`/v1/messages`) and of Azure's.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// `http://127.0.0.1:PORT/v1`: an OpenAI client's `base_url`.
    pub fn base_url(&self) -> String {
        format!("{}/v1", self.url())
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The truth about what was asked, answered and billed.
    pub fn ledger(&self) -> &Ledger {
        &self.core.ledger
    }

    /// The totals once no call is open, so that they hold whatever a client has seen.
    pub async fn settled_summary(&self) -> Summary {
        self.core.ledger.settled(Duration::from_secs(10)).await;
        self.core.ledger.summary()
    }
}

impl Drop for MockJudge {
    fn drop(&mut self) {
        match &mut self.running {
            Running::Task(task) => task.abort(),
            Running::Thread(stop, thread) => {
                drop(stop.take());
                // A panic there was already printed, and a second one here would abort the test.
                let _ = thread.take().map(std::thread::JoinHandle::join);
            }
        }
    }
}

fn prepare(options: Options) -> Result<(Arc<Core>, TcpListener, SocketAddr), StartError> {
    options.validate()?;
    let price = options.price()?;
    // Thousands of calls in flight are as many open files.
    #[cfg(unix)]
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    let (ledger, earlier) = Ledger::open(options.ledger.as_deref(), !options.forget_calls)?;
    let chaos = Chaos::new(&options);
    for entry in earlier {
        chaos.restore(&entry.request, &entry.mode);
    }
    let failed = |source| StartError::Listen { address: options.listen, source };
    let socket = if options.listen.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
    let socket = socket.map_err(failed)?;
    socket.set_reuseaddr(true).map_err(failed)?;
    socket.bind(options.listen).map_err(failed)?;
    let listener = socket.listen(BACKLOG).map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let limits = Limits::new(&options, Instant::now());
    let batches = Batches::default();
    let core = Core { price, ledger, chaos, limits, batches, url: format!("http://{address}"), options };
    Ok((Arc::new(core), listener, address))
}

/// Accepts for ever. Dropping the future ends every connection.
async fn accept(core: Arc<Core>, listener: TcpListener) {
    let router = router(Arc::clone(&core));
    let mut connections = JoinSet::new();
    let mut number = 0_u64;
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((tcp, _)) => {
                    number += 1;
                    let refuse = core.options.refuse_connections;
                    if refuse > 0.0
                        && rlaif_core::seed::stream(core.options.seed, "mock/refuse", number).random::<f64>() < refuse
                    {
                        reset_on_close(&tcp);
                        core.ledger.refused_connection();
                        continue;
                    }
                    connections.spawn(serve(tcp, router.clone()));
                }
                // Out of files, mostly: connections that end make room.
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve(tcp: TcpStream, router: Router) {
    // Small replies must not wait for each other.
    let _ = tcp.set_nodelay(true);
    let connection = Connection::default();
    let io = TokioIo::new(Stream::new(tcp, connection.clone()));
    let service = hyper::service::service_fn(move |mut request: Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(connection.clone());
        router.clone().oneshot(request.map(Body::new))
    });
    // A client that goes away, or that we drop on purpose, ends the connection with an error that is nobody's news.
    let _ = http1::Builder::new().timer(TokioTimer::new()).serve_connection(io, service).await;
}

fn router(core: Arc<Core>) -> Router {
    Router::new()
        .route("/v1/chat/completions", post(chat))
        .route("/openai/deployments/{name}/chat/completions", post(azure))
        .route("/v1/messages", post(messages))
        .layer(DefaultBodyLimit::max(MAX_CALL))
        .merge(batches())
        .route("/v1/models", get(models))
        .route("/v1/models/{id}", get(model))
        .route("/ledger/summary", get(summary))
        .route("/ledger", get(entries))
        .fallback(no_such_path)
        .with_state(core)
}

fn batches() -> Router<Arc<Core>> {
    use batch::{anthropic, openai};
    let of_openai = Router::new()
        .route("/v1/files", post(openai::upload).get(openai::files))
        .route("/v1/files/{id}", get(openai::file))
        .route("/v1/files/{id}/content", get(openai::content))
        .route("/v1/batches", post(openai::create).get(openai::list))
        .route("/v1/batches/{id}", get(openai::retrieve))
        .route("/v1/batches/{id}/cancel", post(openai::cancel))
        // The form around a file has some bytes of its own.
        .layer(DefaultBodyLimit::max(openai::MAX_FILE + 4096));
    Router::new()
        .route("/v1/messages/batches", post(anthropic::create).get(anthropic::list))
        .route("/v1/messages/batches/{id}", get(anthropic::retrieve))
        .route("/v1/messages/batches/{id}/results", get(anthropic::results))
        .route("/v1/messages/batches/{id}/cancel", post(anthropic::cancel))
        .layer(DefaultBodyLimit::max(anthropic::MAX_BODY))
        .merge(of_openai)
}

async fn chat(
    State(core): State<Arc<Core>>,
    Extension(connection): Extension<Connection>,
    headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    let incoming = Incoming { provider: Provider::OpenAi, deployment: None, headers: &headers, body: &body };
    core.answer(incoming, &connection).await
}

async fn azure(
    State(core): State<Arc<Core>>,
    Extension(connection): Extension<Connection>,
    Path(name): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    if !query.is_some_and(|query| query.split('&').any(|pair| pair.starts_with("api-version="))) {
        // Azure answers 404 without a version.
        let error = ApiError { code: "404", ..not_found("Resource not found") };
        return error_response(Provider::OpenAi, StatusCode::NOT_FOUND, &error);
    }
    let incoming =
        Incoming { provider: Provider::OpenAi, deployment: Some(&name), headers: &headers, body: &body };
    core.answer(incoming, &connection).await
}

async fn messages(
    State(core): State<Arc<Core>>,
    Extension(connection): Extension<Connection>,
    headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    let incoming =
        Incoming { provider: Provider::Anthropic, deployment: None, headers: &headers, body: &body };
    core.answer(incoming, &connection).await
}

async fn models(State(core): State<Arc<Core>>) -> impl IntoResponse {
    Json(json!({"object": "list", "data": [model_object(&core.options.model)], "has_more": false}))
}

async fn model(Path(id): Path<String>) -> impl IntoResponse {
    Json(model_object(&id))
}

fn model_object(id: &str) -> serde_json::Value {
    json!({"id": id, "object": "model", "created": 1_700_000_000, "owned_by": "rlaif-mock-judge", "type": "model",
        "display_name": id})
}

async fn summary(State(core): State<Arc<Core>>) -> impl IntoResponse {
    Json(core.ledger.summary())
}

async fn entries(State(core): State<Arc<Core>>) -> impl IntoResponse {
    Json(core.ledger.entries())
}

async fn no_such_path(uri: Uri) -> Response<Body> {
    let message = format!("Invalid URL ({})", uri.path());
    error_response(Provider::OpenAi, StatusCode::NOT_FOUND, &not_found(&message))
}

/// An error that is no answer to a call.
pub(crate) fn error_response(provider: Provider, status: StatusCode, error: &ApiError<'_>) -> Response<Body> {
    let body = error.body(provider, "req_mock");
    (status, [("content-type", "application/json")], body).into_response()
}
