//! A call that no pair needs, on the same terms as all others: claimed and set aside for in the ledger before it is sent, its reply kept
//! before it is read. Like `ledger.rs` it knows nothing else of this program, so that tests of `rlaif-mock-judge` include this very file.

use super::ledger::{Ledger, task};
use rlaif_judge::capability::REFUSALS;
use rlaif_judge::engine::{EngineOptions, Listed, Stop, Summary, judge_all};
use rlaif_judge::{ChatModel, Task};
use rlaif_store::StoreError;
use rlaif_store::store::{CallEvent, Request, RequestFailure, Store};

/// Sends one request on the account of a stage. What came of it is in the ledger then, see [`Store::lone`]; that the endpoint does not
/// take the request is an answer too, and stops nothing.
///
/// # Errors
/// If the judge cannot go on, as with its first call about a pair.
pub async fn send_alone<M: ChatModel>(
    store: &Store,
    stage: &str,
    judge: &str,
    model: &M,
    options: EngineOptions<'_>,
    request: Request,
) -> Result<Summary, Stop<StoreError>> {
    let ledger = Ledger::new(store, stage, judge, |_| {});
    let seq = request.seq;
    // Retries of an earlier run do not count in this one.
    let mut tasks = Listed::new([Task { retries: 0, ..task(request) }]);
    match judge_all(model, &mut tasks, options, &ledger).await {
        Err(Stop::Fatal(error)) if REFUSALS.contains(&error.kind) => {
            let (class, message) = (error.kind.as_str(), error.message.as_str());
            let failure = RequestFailure { class, message, maybe_billed: false };
            let given_up = [CallEvent::GivenUp { request: seq, failure }];
            store.commit_calls(stage, judge, &given_up).await.map_err(Stop::Journal)?;
            Ok(Summary { given_up: 1, ..Summary::default() })
        }
        ended => ended,
    }
}
