//! The binary is killed at every request, and run again.

use std::time::Duration;

use anyhow::{Result, ensure};
use aws_lab::{Effect, Matcher, Moment};

use super::way::Way;
use super::{Bounds, Part, defects, each, table};
use crate::common::KEYS;

const WAYS: [Way; 6] = [
    Way { mode: "apply", full: false, in_place: false },
    Way { mode: "apply", full: true, in_place: false },
    Way { mode: "rollback", full: false, in_place: false },
    Way { mode: "rollback", full: true, in_place: false },
    Way { mode: "apply", full: false, in_place: true },
    Way { mode: "apply", full: true, in_place: true },
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
    let ran = way.run(&bench);
    way.converged(&bench, &ran)?;
    Ok(Left { done, files: Way::leftovers(&bench) })
}

/// How many requests an undisturbed run sends.
async fn requests(way: Way) -> Result<u32> {
    let bench = way.bench().await;
    let ran = way.run(&bench);
    way.converged(&bench, &ran)?;
    Ok(u32::try_from(bench.lab.log().len())?)
}

/// Every request of every way, at three moments.
pub async fn part(bounds: Bounds) -> Result<Part> {
    let mut points = Vec::new();
    let mut sent = Vec::new();
    for way in WAYS {
        let all = requests(way).await?;
        sent.push(all);
        for nth in 1..=all {
            points.extend(MOMENTS.map(|moment| Point { way, nth, moment }));
        }
    }
    let outcomes = each(bounds.of(points), 3, killed).await;
    let rows: Vec<Vec<String>> = WAYS
        .iter()
        .zip(&sent)
        .map(|(way, sent)| {
            let own: Vec<_> = outcomes.iter().filter(|(point, _)| point.way == *way).collect();
            let left: Vec<&Left> =
                own.iter().filter_map(|(_, outcome)| outcome.as_ref().ok()).collect();
            let found = |done: usize| left.iter().filter(|left| left.done == done).count();
            let counts = [0, 1, KEYS.len()].map(found);
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
        "no state re-keyed yet",
        "one",
        "both",
        "intact, and converged by the next run",
        "temporary files left",
    ];
    let text = format!(
        "SIGKILL at every request: before it is carried out, after it is carried out and before its \
         answer, and after its answer. Two states; the deploy role of another account (in place: the \
         bucket owner's administrator). With the probe come the look for runs in flight and the check \
         run. Then the same again, undisturbed: it must exit with 0 and leave the same bytes under the \
         encryption that is wanted, with no version lost.\n\n{}",
        table(&head, &rows)
    );
    Ok(Part { title: "Crash points", text, defects: defects(&outcomes) })
}
