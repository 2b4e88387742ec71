//! The listener. Connections are few, and end when they take their time: a browser on a desk is quick.

use super::{App, guard::Guard, routes};
use crate::error::UserError;
use crate::interrupt;
use crate::progress::say;
use anyhow::{Context, Result};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rlaif_core::Config;
use rlaif_store::Store;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

/// Connections at a time; a browser opens up to six.
const MOST_CONNECTIONS: usize = 256;

/// In which the head of a request must have come, and in which an idle connection must say something.
const HEAD_PATIENCE: Duration = Duration::from_secs(15);

/// How often Ctrl-C is looked for.
const LOOK: Duration = Duration::from_millis(100);

/// Where the page is served.
#[derive(Debug, Clone)]
pub struct Options {
    /// Address and port; port 0 is any that is free.
    pub listen: SocketAddr,
    /// Other names, as `HOST:PORT`, under which browsers may reach it.
    pub names: Vec<String>,
}

/// Serves the page until Ctrl-C. Prints the address that begins a session on stdout.
///
/// # Errors
/// If the address cannot be used, or the store not be read.
pub async fn serve(config: Config, store: Store, options: &Options) -> Result<()> {
    let listen = options.listen;
    let exposed = !listen.ip().is_loopback();
    if listen.ip().is_unspecified() && options.names.is_empty() {
        return Err(UserError::new(format!(
            "`--listen {listen}` is every address of this machine, and no name is allowed yet"
        ))
        .hint("Name what browsers will ask for, as `--allow-host 192.0.2.7:8080`, or listen on one address")
        .into());
    }
    let listener = TcpListener::bind(listen).await.map_err(|error| {
        UserError::new(format!("cannot listen on `{listen}`: {error}"))
            .hint("Choose another port with `--listen 127.0.0.1:0`, which is any that is free")
    })?;
    let address = listener.local_addr().context("asking for the port")?;
    if exposed {
        say(&format!(
            "warning: `{address}` can be reached from other machines, without encryption: who can read the network's traffic can \
             read and judge everything; `ssh -L` to a server on 127.0.0.1 is safer"
        ));
    }
    let guard = Guard::new(address, &options.names)?;
    let shown = options.names.first().cloned().unwrap_or_else(|| address.to_string());
    let start = format!("http://{shown}{}", guard.start_path());
    let app = Arc::new(App::new(config, store, guard).await?);
    println!("{start}");
    say(
        "review: open the address above in a browser; Ctrl-C ends it, and everything that was judged is kept",
    );

    let pages = routes::pages(Arc::clone(&app));
    let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    while !interrupt::requested() {
        let place = Arc::clone(&places).acquire_owned().await.context("the places are never closed")?;
        let connection = tokio::select! {
            accepted = listener.accept() => accepted,
            () = interrupted() => break,
        };
        let Ok((connection, _)) = connection else {
            tokio::time::sleep(LOOK).await; // no file is left to open, perhaps
            continue;
        };
        connection.set_nodelay(true).ok();
        let service = TowerToHyperService::new(pages.clone());
        tokio::spawn(async move {
            let served = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_PATIENCE)
                .max_buf_size(64 << 10)
                .serve_connection(TokioIo::new(connection), service)
                .await;
            drop((served, place)); // a browser that hangs up is no error
        });
    }
    Ok(())
}

async fn interrupted() {
    while !interrupt::requested() {
        tokio::time::sleep(LOOK).await;
    }
}
