//! The binary is killed at every request, and run again.

use std::time::Duration;

use anyhow::{Result, ensure};
use aws_lab::{Effect, Matcher, Moment};

use super::way::{Taken, Way, With, way};
use super::{Bounds, Part, defects, each, table};

const WAYS: [Way; 16] = [
    way("apply", With::Nothing, false),
    way("apply", With::Guards, false),
    way("apply", With::Others, false),
    way("apply", With::Everything, false),
    way("apply", With::Refusal, false),
    way("rollback", With::Nothing, false),
    way("rollback", With::Guards, false),
    way("rollback", With::Everything, false),
    way("apply", With::Nothing, true),
    way("apply", With::Guards, true),
    way("apply", With::History, true),
    way("create-key", With::Nothing, false),
    way("retire-key", With::Nothing, false),
    way("retire-key", With::Needed, false),
    way("recover-key", With::Nothing, false),
    way("revoke", With::Nothing, false),
];

const MOMENTS: [Moment; 3] = [Moment::Before, Moment::CarriedOut, Moment::Answered];

#[derive(Debug, Clone, Copy)]
struct Point {
    way: Way,
    nth: u32,
    moment: Moment,
}

/// What a crash left.
#[derive(Debug, Clone, Copy)]
struct Left {
    /// How many states were as wanted by then.
    done: usize,
    /// Temporary files.
    files: usize,
    /// What the next run said was to be done first.
    taken: Taken,
}

/// Kills a run there, and has it run again.
async fn killed(Point { way, nth, moment }: Point) -> Result<Left> {
    let bench = way.bench().await;
    let (effect, begun) = Effect::freeze(moment);
    bench.lab.inject(Matcher::any().from(nth), effect);
    let variables = way.variables(&bench);
    let reached = tokio::task::block_in_place(|| {
        let mut child = bench.workspace.start(&variables);
        let reached = loop {
            match begun.recv_timeout(Duration::from_millis(20)) {
                Ok(()) => break true,
                // The last answer may end the run before its arrival is told.
                Err(_) if child.try_wait()?.is_some() => {
                    break begun.recv_timeout(Duration::from_millis(200)).is_ok();
                }
                Err(_) => {}
            }
        };
        let _ = child.kill();
        child.wait()?;
        anyhow::Ok(reached)
    })?;
    ensure!(reached, "the run ended before");
    bench.lab.clear_faults();
    way.intact(&bench)?;
    let done = way.done(&bench);
    let taken = way.to_the_end(&bench)?;
    Ok(Left { done, files: Way::leftovers(&bench), taken })
}

/// How many requests an undisturbed run sends.
async fn requests(way: Way) -> Result<u32> {
    let bench = way.bench().await;
    let ran = way.run(&bench);
    way.converged(&bench, &ran).map_err(|error| error.context(way.name()))?;
    Ok(u32::try_from(bench.lab.log().len())?)
}

/// Every request of every way, at three moments.
pub async fn part(bounds: Bounds) -> Result<Part> {
    let mut points = Vec::new();
    let mut sent = Vec::new();
    for way in WAYS {
        let all = requests(way).await?;
        sent.push(all);
        let own = (1..=all).flat_map(|nth| MOMENTS.map(|moment| Point { way, nth, moment }));
        points.extend(bounds.of(own.collect()));
    }
    let outcomes = each(points, 3, killed).await;
    let total = outcomes.len();
    let good = outcomes.iter().filter(|(_, outcome)| outcome.is_ok()).count();
    let rows: Vec<Vec<String>> = WAYS
        .iter()
        .zip(&sent)
        .map(|(way, sent)| {
            let own: Vec<_> = outcomes.iter().filter(|(point, _)| point.way == *way).collect();
            let left: Vec<&Left> =
                own.iter().filter_map(|(_, outcome)| outcome.as_ref().ok()).collect();
            let found = |wanted: &dyn Fn(&&&Left) -> bool| left.iter().filter(wanted).count();
            let all = way.all();
            let counts = [
                found(&|left| left.done == 0),
                found(&|left| left.done > 0 && left.done < all),
                found(&|left| left.done == all),
                found(&|left| left.taken.unlocked),
                found(&|left| left.taken.brought_back),
            ];
            let mut row = vec![way.name(), sent.to_string(), own.len().to_string()];
            row.extend(counts.map(|count| count.to_string()));
            row.push(format!("{} of {}", left.len(), own.len()));
            row.push(left.iter().map(|left| left.files).sum::<usize>().to_string());
            row
        })
        .collect();
    let head = [
        "run",
        "requests",
        "crash points",
        "nothing done yet",
        "some",
        "all",
        "a lock left",
        "a state left unreadable",
        "intact, and converged by the next run",
        "temporary files left",
    ];
    let text = format!(
        "SIGKILL at every request: before it is carried out, after it is carried out and before its \
         answer, and after its answer. Two states or three; the deploy role of another account (in place: \
         the bucket owner's administrator; the key modes: the key's). Then the same again, undisturbed: it \
         must exit with 0 and leave the same bytes under the encryption that is wanted, with no version \
         lost; a key mode must leave the key as it was asked for, with its administrator, never a second \
         key, and no state unreadable; a key that states need stays enabled all the time. A killed run \
         cannot release a lock: then the next one must say by which command, and the one after that \
         converge. Where S3 alone can tell whether the key may be used, and lets this principal write and \
         not read, one state is written and put back, and the run fails; killed in between, it leaves that \
         state unreadable for this principal, and the next run must name the version with its bytes.\n\n\
         **{total} crash points, each of them reached: after {good} all was intact and the next run \
         converged.**\n\n{}",
        table(&head, &rows)
    );
    Ok(Part { title: "Crash points", text, defects: defects(&outcomes) })
}
