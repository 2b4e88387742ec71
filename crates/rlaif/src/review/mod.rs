//! `rlaif review`: the page on which people judge a run's pairs.
//!
//! | file | is |
//! |---|---|
//! | [`queues`] | which pairs are worth people's time, and on which side each response stands |
//! | [`desk`] | who is shown which pair: leases, progress, pace |
//! | [`server`] | the listener; connections that take their time are ended |
//! | [`guard`] | what every request must show before anything looks at it: method, host, origin, session, CSRF token |
//! | [`routes`] | what the pages do |
//! | [`pages`] | what the pages show; `templates/review/` |
//! | [`markup`] | untrusted text to HTML |
//! | [`agreement`] | how far people agree with each other and with the judges |
//!
//! Nothing that a page shows tells which model, sample or side of a pair a response is, or what a judge said of it.

pub mod agreement;
mod desk;
mod guard;
pub mod markup;
mod pages;
pub mod queues;
mod routes;
mod server;

pub use server::{Options, serve};

use anyhow::Result;
use desk::Desk;
use guard::Guard;
use queues::Queues;
use rlaif_core::Config;
use rlaif_store::Store;

/// What all requests share.
pub struct App {
    config: Config,
    store: Store,
    guard: Guard,
    /// Held while a verdict goes into the ledger: what the desk says is what the ledger says.
    desk: tokio::sync::Mutex<Desk>,
}

impl App {
    /// Reads the pairs of a run and what people have said of them so far.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn new(config: Config, store: Store, guard: Guard) -> Result<Self> {
        let queues = Queues::read(&store, &config).await?;
        let verdicts = store.human_verdicts().await?;
        let lease_ms = (1000.0 * config.review.lease_seconds) as i64;
        let desk = Desk::new(queues, &verdicts, config.review.ratings_per_pair, lease_ms);
        Ok(Self { config, store, guard, desk: tokio::sync::Mutex::new(desk) })
    }
}
