use proptest::prelude::*;

use super::*;

const STEP: &str = "State under the key";

/// `t5` is five seconds after some time; anything else is no time.
fn at(text: &str) -> Option<DateTime> {
    text.strip_prefix('t')?.parse().ok().map(DateTime::from_secs_f64)
}

fn run(id: u64, status: &str, started_at: &str) -> WorkflowRun {
    WorkflowRun {
        id,
        workflow: "infra.yml".into(),
        status: status.into(),
        branch: "main".into(),
        created_at: at(started_at),
        started_at: at(started_at),
        again: false,
        url: format!("https://github.com/o/r/actions/runs/{id}"),
    }
}

fn job(id: u64, status: &str, started_at: &str, step: &str) -> Job {
    Job {
        status: status.into(),
        skipped: false,
        started_at: at(started_at),
        runner: format!("runner-{id}"),
        step: (!step.is_empty()).then(|| step.to_owned()),
    }
}

fn only(files: BTreeSet<String>) -> Workflows {
    Workflows { files, ..Workflows::default() }
}

/// What run `own` comes to: who is busy and who is stale.
fn judged(own: u64, runs: &[(WorkflowRun, Vec<Job>)]) -> (Vec<u64>, Vec<u64>) {
    let runner = format!("runner-{own}");
    let files = ["infra.yml".to_owned()].into();
    let question = Question { workflows: only(files), branch: "*", own, runner: Some(&runner) };
    let all: Vec<WorkflowRun> = runs.iter().map(|(run, _)| run.clone()).collect();
    let examined = to_examine(&question, &all);
    let jobs = runs.iter().filter(|(run, _)| examined.contains(&run.id));
    let jobs = jobs.map(|(run, jobs)| (run.id, jobs.clone())).collect();
    let found = judge(&question, &Look { runs: all, jobs });
    let ids = |runs: &[WorkflowRun]| runs.iter().map(|run| run.id).collect::<Vec<_>>();
    (ids(&found.busy), ids(&found.stale))
}

/// Run 5, of t5, at the check in its only job.
fn own() -> (WorkflowRun, Vec<Job>) {
    (run(5, "in_progress", "t5"), vec![job(5, "in_progress", "t5", STEP)])
}

fn at_the_check(id: u64, started_at: &str) -> (WorkflowRun, Vec<Job>) {
    (run(id, "in_progress", started_at), vec![job(id, "in_progress", started_at, STEP)])
}

#[test]
fn everyone_who_is_active_counts_older_or_newer() {
    let none: (Vec<u64>, Vec<u64>) = (vec![], vec![]);
    assert_eq!(judged(5, &[own()]), none);
    for id in [4, 6] {
        let began = format!("t{id}");
        for status in ["queued", "requested", "in_progress", "of tomorrow"] {
            let other = (run(id, status, &began), vec![job(id, "in_progress", &began, "apply")]);
            assert_eq!(judged(5, &[own(), other]), (vec![id], vec![]), "{id} {status}");
        }
    }
    let files = ["infra.yml".to_owned()].into();
    let elsewhere = Question { workflows: only(files), branch: "release", own: 5, runner: None };
    let runs = vec![run(4, "in_progress", "t4")];
    assert!(judge(&elsewhere, &Look { runs, ..Look::default() }).is_clear());
}

#[test]
fn of_two_that_do_nothing_but_stand_at_the_check_the_first_goes_first() {
    assert_eq!(judged(5, &[own(), at_the_check(4, "t4")]).0, [4]);
    assert!(judged(5, &[own(), at_the_check(6, "t6")]).0.is_empty());
    // GitHub may still show this job in the step before, where nobody is excused for the check.
    let early = || (run(5, "in_progress", "t5"), vec![job(5, "in_progress", "t5", "Credentials")]);
    assert_eq!(judged(5, &[early(), at_the_check(6, "t6")]).0, [6]);
    // One that does something else as well, or will, is not only at the check.
    for (status, step) in [("in_progress", "apply"), ("queued", ""), ("waiting", "")] {
        let (run, mut jobs) = at_the_check(6, "t6");
        jobs.push(job(60, status, "t6", step));
        assert_eq!(judged(5, &[own(), (run, jobs)]).0, [6], "{status}");
    }
    // What is over does not matter.
    let (other, mut jobs) = at_the_check(6, "t6");
    jobs.push(job(60, "completed", "t6", ""));
    assert!(judged(5, &[own(), (other, jobs)]).0.is_empty());
    // Asked for earlier, but held back by a concurrency group: it began later, and may not have
    // been seen by the one that began before.
    let held = (run(4, "in_progress", "t4"), vec![job(4, "in_progress", "t7", STEP)]);
    assert!(judged(5, &[own(), held.clone()]).0.is_empty());
    assert_eq!(judged(4, &[own(), held]).0, [5]);
    // A re-run lists the jobs of before.
    let again = vec![job(40, "completed", "t1", ""), job(6, "in_progress", "t6", STEP)];
    assert!(judged(5, &[own(), (run(6, "in_progress", "t6"), again)]).0.is_empty());
}

#[test]
fn who_is_held_back_since_before_this_job_is_stale() {
    let held = |id: u64, status: &str, began: &str| (run(id, status, began), vec![]);
    assert_eq!(judged(5, &[own(), held(4, "waiting", "t4")]), (vec![], vec![4]));
    assert_eq!(judged(5, &[own(), held(6, "waiting", "t6")]), (vec![], vec![]));
    // This run has waited for an approval itself; the other was made before it got it.
    let approved = || vec![job(50, "completed", "t5", ""), job(5, "in_progress", "t8", STEP)];
    let own_run = || (run(5, "in_progress", "t5"), approved());
    assert_eq!(judged(5, &[own_run(), held(6, "waiting", "t6")]), (vec![], vec![6]));
    assert_eq!(judged(5, &[own_run(), held(9, "waiting", "t9")]), (vec![], vec![]));
    // GitHub shows steps later than jobs.
    let young = (run(5, "in_progress", "t5"), vec![job(5, "in_progress", "t5", "")]);
    assert_eq!(judged(5, &[young, held(6, "waiting", "t6")]), (vec![], vec![]));
    // It waits in one job, and runs in another.
    let both = vec![job(6, "in_progress", "t6", "apply"), job(60, "waiting", "t6", "")];
    assert_eq!(judged(5, &[own(), (run(6, "waiting", "t6"), both)]), (vec![6], vec![]));
    // Not knowing when this job began, those from before its run are stale all the same, and of
    // the others a later look will tell.
    let queued = job(5, "queued", "t5", "");
    let unclear = Job { started_at: None, ..job(5, "in_progress", "t5", STEP) };
    for jobs in [vec![], vec![queued], vec![unclear]] {
        let unknown = || (run(5, "in_progress", "t5"), jobs.clone());
        assert_eq!(judged(5, &[unknown(), held(4, "waiting", "t4")]), (vec![], vec![4]));
        assert_eq!(judged(5, &[unknown(), held(6, "waiting", "t6")]), (vec![6], vec![]));
    }
}

/// A run of unknown time counts as older, and an unknown start excuses nobody.
#[test]
fn what_has_no_time_is_in_the_way() {
    for status in ["waiting", "pending"] {
        let built = vec![job(60, "completed", "", "")];
        assert_eq!(judged(5, &[own(), (run(6, status, ""), built)]), (vec![], vec![6]), "{status}");
    }
    let started = |id: u64, run_at: &str, job_at: &str| {
        (run(id, "in_progress", run_at), vec![job(id, "in_progress", job_at, STEP)])
    };
    for (run_at, job_at) in [("", "t6"), ("t6", ""), ("", "")] {
        assert_eq!(judged(5, &[own(), started(6, run_at, job_at)]).0, [6], "{run_at} {job_at}");
        // Nor does one that does not know its own start go first.
        let own = started(5, run_at, job_at);
        assert_eq!(judged(5, &[own, at_the_check(6, "t6")]).0, [6], "{run_at} {job_at}");
    }
    // One job's start is known, another's is not, which may be the earlier one.
    let (other, mut jobs) = at_the_check(6, "t6");
    jobs.push(job(60, "completed", "", ""));
    assert_eq!(judged(5, &[own(), (other, jobs)]).0, [6]);
    // Of a second that this job began in, or of an earlier one.
    for (asked, stale) in [("t5.9", 1), ("t4.9", 1), ("t6.1", 0)] {
        let found = judged(5, &[own(), (run(6, "waiting", asked), vec![])]);
        assert_eq!((found.0.len(), found.1.len()), (0, stale), "{asked}");
    }
    // Not as texts: «t10» is later than «t5».
    assert!(judged(5, &[own(), at_the_check(6, "t10")]).0.is_empty());
}

#[test]
fn a_job_that_waits_for_its_runner_only_is_not_held_back() {
    let beside = |status: &str, first: Vec<Job>| {
        let jobs = [first, vec![job(6, "queued", "", ""), job(60, status, "", "")]].concat();
        (run(6, status, "t6"), jobs)
    };
    assert_eq!(judged(5, &[own(), beside("waiting", vec![])]), (vec![6], vec![]));
    let built = vec![job(61, "completed", "t6", "")];
    assert_eq!(judged(5, &[own(), beside("pending", built)]), (vec![6], vec![]));
    // Before its first job it has built nothing, and may be waiting for this very run.
    assert_eq!(judged(5, &[own(), beside("pending", vec![])]), (vec![], vec![]));
}

/// A re-run of failed jobs works with the files that the first attempt has built.
#[test]
fn a_re_run_is_as_old_as_its_first_attempt() {
    let again = |status: &str, jobs: Vec<Job>| {
        let run = WorkflowRun { created_at: at("t1"), again: true, ..run(6, status, "t9") };
        (run, jobs)
    };
    for status in ["waiting", "pending"] {
        let held = vec![job(6, status, "", "")];
        assert_eq!(judged(5, &[own(), again(status, held)]), (vec![], vec![6]), "{status}");
    }
}

#[test]
fn a_concurrency_group_holds_back_a_run_or_a_later_job_of_one() {
    let pending = |id: u64, first: Vec<Job>| {
        let mut jobs = first;
        jobs.push(job(id, "pending", "", ""));
        (run(id, "pending", &format!("t{id}")), jobs)
    };
    // As a whole: it has built nothing.
    assert_eq!(judged(5, &[own(), pending(4, vec![])]), (vec![], vec![]));
    let skipped = Job { skipped: true, ..job(40, "completed", "t4", "") };
    assert_eq!(judged(5, &[own(), pending(4, vec![skipped])]), (vec![], vec![]));
    // After a job that may have built a backend.tf.
    let built = |began: &str| vec![job(40, "completed", began, "")];
    assert_eq!(judged(5, &[own(), pending(4, built("t4"))]), (vec![], vec![4]));
    assert_eq!(judged(5, &[own(), pending(6, built("t6"))]), (vec![], vec![]));
    // Beside one that runs.
    let running = vec![job(60, "in_progress", "t6", "apply")];
    assert_eq!(judged(5, &[own(), pending(6, running)]), (vec![6], vec![]));
}

#[test]
fn jobs_that_are_not_known_excuse_nobody() {
    let files: BTreeSet<String> = ["infra.yml".to_owned()].into();
    for (status, began, stale) in
        [("in_progress", "t6", 0), ("pending", "t6", 0), ("waiting", "t6", 0), ("waiting", "t4", 1)]
    {
        let runs = vec![run(5, "in_progress", "t5"), run(6, status, began)];
        let question =
            Question { workflows: only(files.clone()), branch: "*", own: 5, runner: Some("r") };
        let found = judge(&question, &Look { runs, ..Look::default() });
        assert_eq!((found.busy.len(), found.stale.len()), (1 - stale, stale), "{status}");
    }
}

#[test]
fn a_long_wait_leaves_the_repository_its_requests() {
    let patience = Duration::from_secs(24 * 3600);
    let mut waited = Duration::ZERO;
    let mut looks = 1;
    while waited < Duration::from_secs(3600) {
        waited += pause(waited, patience);
        looks += 1;
    }
    // Nine lists of runs, the jobs of this run and of another.
    assert!(looks * 11 < 500, "{looks}");
    assert!(pause(Duration::ZERO, patience) <= Duration::from_secs(15));
    assert_eq!(pause(Duration::ZERO, Duration::from_secs(20)), Duration::from_secs(1));
}

#[test]
fn only_a_missing_right_is_excused_and_what_was_seen_is_not_forgotten() {
    let failure = |found: Result<Found, Blind>, strict| report(&found, strict, true).1;
    let no_right = || Err(Blind::from(ApiError::Forbidden("403".into())));
    assert!(failure(no_right(), false).is_none() && failure(no_right(), true).is_some());
    for error in [
        ApiError::RateLimited(1060),
        ApiError::Unavailable("502".into()),
        ApiError::Other("422".into()),
    ] {
        assert!(failure(Err(error.into()), false).is_some());
    }
    let later = Some(Blind::from(ApiError::Unavailable("502".into())));
    let found = Found { busy: vec![run(4, "in_progress", "t4")], later, ..Found::default() };
    let said = failure(Ok(found), false).unwrap().message;
    assert!(said.contains("runs/4") && said.contains("the last look failed (502)"), "{said}");
}

proptest! {
    /// However they begin: of two that see one another at the check, exactly one waits.
    #[test]
    fn two_at_the_check_never_wait_for_one_another(
        a in 0_u64..50, b in 0_u64..50, s in 0..3, t in 0..3, asked in 0..2,
    ) {
        prop_assume!(a != b);
        let at = |id: u64, began: i32| {
            let run = run(id, "in_progress", &format!("t{}", i32::min(asked, began)));
            (run, vec![job(id, "in_progress", &format!("t{began}"), STEP)])
        };
        let runs = [at(a, s), at(b, t)];
        prop_assert!(judged(a, &runs).0.is_empty() != judged(b, &runs).0.is_empty());
    }
}
