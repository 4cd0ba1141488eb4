//! Other workflow runs: found, waited for, refused, and never passed over in silence.

use aws_lab::{Effect, Encryption, Lab, Matcher, Topology, WorkflowJob, WorkflowRun};

use crate::bench::{Bench, put_all_under_the_key, workspace};
use crate::common::{BUCKET, KEYS, Ran, Workspace, state};

const OWN: u64 = 50;

fn other(id: u64, status: &str) -> WorkflowRun {
    WorkflowRun {
        id,
        workflow: "infra.yml".into(),
        status: status.into(),
        branch: "main".into(),
        created_at: format!("2026-11-24T02:{:02}:{:02}Z", id / 60, id % 60),
        again_at: None,
        jobs: vec![],
    }
}

/// A job of a run, with the step that is under way.
fn job(id: u64, status: &str, started_at: &str, step: &str) -> WorkflowJob {
    WorkflowJob {
        status: status.into(),
        started_at: started_at.into(),
        runner: format!("runner-{id}"),
        step: (!step.is_empty()).then(|| step.to_owned()),
    }
}

/// How many lists of runs a look asks for.
const LISTS: u32 = 9;
const STEP: &str = "State under the key";
/// When this run's job begins.
const BEGAN: &str = "2026-11-24T02:00:50Z";

/// A repository with this run and others, checked out.
async fn repository(others: Vec<WorkflowRun>) -> Bench {
    let bench = not_checked_out(others).await;
    let examples = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/workflows");
    for name in ["infra.yml", "quiesce.yml", "destroy_terraform.yml", "migrate-state.yml"] {
        check_out(&bench, name, &std::fs::read_to_string(examples.join(name)).unwrap());
    }
    check_out(
        &bench,
        "lint.yml",
        "jobs:\n  lint:\n    steps:\n      - run: terraform fmt -check\n",
    );
    bench
}

/// A workflow file of the checkout.
fn check_out(bench: &Bench, name: &str, text: &str) {
    let folder = bench.workspace.path().join(".github/workflows");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join(name), text).unwrap();
}

async fn not_checked_out(others: Vec<WorkflowRun>) -> Bench {
    Bench::with(Topology::Roles, |world| {
        let own = WorkflowRun {
            workflow: "migrate-state.yml".into(),
            jobs: vec![job(OWN, "in_progress", BEGAN, STEP)],
            ..other(OWN, "in_progress")
        };
        world.github.workflows =
            ["infra.yml", "migrate-state.yml", "lint.yml"].map(str::to_owned).into();
        world.github.runs = others;
        world.github.runs.push(own);
    })
    .await
}

fn variables(bench: &Bench, own: u64, mode: &str, more: &[(&str, &str)]) -> Vec<(String, String)> {
    variables_of("deploy", bench, own, mode, more)
}

fn variables_of(
    who: &str,
    bench: &Bench,
    own: u64,
    mode: &str,
    more: &[(&str, &str)],
) -> Vec<(String, String)> {
    let mut variables = bench.job_variables(who, mode, &bench.key, more);
    variables.retain(|(name, _)| name != "GITHUB_RUN_ID");
    let workflow = "example/infrastructure/.github/workflows/migrate-state.yml@refs/heads/main";
    for (name, value) in [
        ("GITHUB_RUN_ID", own.to_string().as_str()),
        ("RUNNER_NAME", &format!("runner-{own}")),
        ("GITHUB_WORKFLOW_REF", workflow),
        ("GITHUB_ACTIONS", "true"),
    ] {
        variables.push((name.to_owned(), value.to_owned()));
    }
    variables
}

async fn run(bench: &Bench, mode: &str, more: &[(&str, &str)]) -> Ran {
    let variables = variables(bench, OWN, mode, more);
    tokio::task::block_in_place(|| bench.workspace.run(&variables))
}

/// `apply` is refused for a run in flight, and has written nothing.
async fn refused(bench: &Bench, more: &[(&str, &str)]) -> Ran {
    let digest = bench.digest();
    let ran = run(bench, "apply", more).await.red("run-in-flight");
    bench.assert_untouched(&digest);
    ran
}

fn link(id: u64) -> String {
    format!("https://github.com/example/infrastructure/actions/runs/{id}")
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_active_older_or_newer_stops_a_write() {
    for (id, status) in [(4, "queued"), (4, "in_progress"), (77, "in_progress"), (77, "queued")] {
        let bench = repository(vec![other(id, status)]).await;
        let ran = refused(&bench, &[]).await;
        assert!(ran.log.contains(&link(id)), "{}", ran.log);
        assert_eq!(ran.check("no-run-in-flight"), "fail");
        assert_eq!(bench.workspace.backend("infra"), "");
        // A run that only looks says so, and so does one that has nothing to write.
        let ran = run(&bench, "plan", &[]).await.green();
        assert_eq!(ran.check("no-run-in-flight"), "warn");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_done_held_back_or_not_concerned_does_not() {
    let lint = WorkflowRun { workflow: "lint.yml".into(), ..other(4, "in_progress") };
    let bench =
        repository(vec![lint, other(5, "completed"), other(6, "pending"), other(77, "waiting")])
            .await;
    let ran = run(&bench, "apply", &[]).await.green();
    assert_eq!(
        (ran.check("no-run-in-flight"), ran.output("rekeyed")),
        ("pass", "2"),
        "{}",
        ran.log
    );
    // On another branch.
    let bench = repository(vec![other(4, "in_progress")]).await;
    let more = [("INPUT_IN-FLIGHT-BRANCH", "release")];
    let _ = run(&bench, "apply", &more).await.green();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_approval_that_waits_since_before_is_refused_however_patient() {
    let bench = repository(vec![other(4, "waiting")]).await;
    let more = [("INPUT_IN-FLIGHT-TIMEOUT", "600")];
    let ran = refused(&bench, &more).await;
    assert!(ran.log.contains("Reject it") && ran.log.contains(&link(4)), "{}", ran.log);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_waited_for_and_the_states_are_looked_at_anew() {
    let bench = repository(vec![other(4, "in_progress")]).await;
    // At the third look it has ended, after a write.
    bench.lab.inject(
        Matcher::every("ListRepositoryRuns").nth(2 * LISTS + 1),
        Effect::Act(Box::new(|world| {
            world.github.runs[0].status = "completed".into();
            world.put_object(BUCKET, KEYS[0], state(100), Encryption::SseS3);
        })),
    );
    let more = [("INPUT_IN-FLIGHT-TIMEOUT", "30")];
    let ran = run(&bench, "apply", &more).await.green();
    assert!(ran.log.contains(&format!("waiting for {}", link(4))), "{}", ran.log);
    assert_eq!(ran.report["objects"][0]["serial"], 100);
    assert_eq!((ran.output("rekeyed"), bench.body(KEYS[0])), ("2", state(100)));
    // Patience ends.
    let bench = repository(vec![other(4, "in_progress")]).await;
    let digest = bench.digest();
    let ran = run(&bench, "apply", &[("INPUT_IN-FLIGHT-TIMEOUT", "1")]).await.red("run-in-flight");
    bench.assert_untouched(&digest);
    assert!(ran.log.contains("waiting for"), "{}", ran.log);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_changes_its_state_while_it_is_looked_for_is_seen() {
    // A young run, which is among the latest, and one from before a hundred others.
    let steps = [
        (77, "queued", "in_progress"),
        (4, "requested", "queued"),
        (4, "waiting", "queued"),
        (4, "queued", "in_progress"),
        (4, "in_progress", "queued"),
        (4, "in_progress", "waiting"),
        (4, "pending", "queued"),
        (4, "in_progress", "pending"),
    ];
    for (id, from, to) in steps {
        for nth in 1..=LISTS {
            let younger = (100..300).map(|id| WorkflowRun {
                created_at: "2026-11-24T03:00:00Z".into(),
                ..other(id, "completed")
            });
            let younger = younger.filter(|_| id < OWN);
            let held = WorkflowRun {
                jobs: vec![job(id, "completed", "2026-11-24T02:00:04Z", "")],
                ..other(id, from)
            };
            let bench = repository([held].into_iter().chain(younger).collect()).await;
            bench.lab.inject(
                Matcher::every("ListRepositoryRuns").nth(nth),
                Effect::Act(Box::new(|world| world.github.runs[0].status = to.into())),
            );
            let ran = run(&bench, "apply", &[]).await.red("run-in-flight");
            assert!(ran.log.contains(&link(id)), "{from} to {to}, {nth}: {}", ran.log);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn not_being_able_to_look_is_never_silent() {
    let bench = repository(vec![other(4, "in_progress")]).await;
    bench.lab.world().github.permissions.clear();
    let digest = bench.digest();
    let list = [("INPUT_IN-FLIGHT", "infra.yml")];
    let ran = run(&bench, "apply", &list).await.red("run-in-flight");
    assert!(ran.log.contains("actions: read"), "{}", ran.log);
    let no_token = [("INPUT_IN-FLIGHT", "infra.yml"), ("INPUT_GITHUB-TOKEN", "")];
    let _ = run(&bench, "apply", &no_token).await.red("run-in-flight");
    bench.lab.world().github.permissions.insert("actions:read".into());
    let slip = [("INPUT_IN-FLIGHT", "infra.yml inrfa.yml")];
    let ran = run(&bench, "apply", &slip).await.red("run-in-flight");
    assert!(ran.log.contains("no workflow file `inrfa.yml`"), "{}", ran.log);
    bench.lab.world().github.rate_limited = true;
    let ran = run(&bench, "apply", &list).await.red("run-in-flight");
    assert!(ran.log.contains("rate limit"), "{}", ran.log);
    bench.lab.world().github.rate_limited = false;
    bench.lab.inject(Matcher::every("ListRepositoryRuns"), Effect::Truncate);
    let _ = run(&bench, "apply", &list).await.red("run-in-flight");
    bench.lab.clear_faults();
    bench.assert_untouched(&digest);
    // Under `auto` it is a warning.
    bench.lab.world().github.permissions.clear();
    let ran = run(&bench, "apply", &[]).await.green();
    assert_eq!(ran.check("no-run-in-flight"), "unknown");
    assert!(ran.log.contains("::warning") && ran.log.contains("actions: read"), "{}", ran.log);
    let none = [("INPUT_IN-FLIGHT", "none")];
    let ran = run(&bench, "apply", &none).await.green();
    assert_eq!(ran.check("no-run-in-flight"), "(not made)");
}

/// Two runs at the same step, one after the other: neither waits for ever, both succeed.
#[tokio::test(flavor = "multi_thread")]
async fn two_at_this_check_do_not_wait_for_one_another() {
    let at_it = |id: u64| WorkflowRun {
        workflow: "migrate-state.yml".into(),
        jobs: vec![job(id, "in_progress", &format!("2026-11-24T02:00:{id:02}Z"), STEP)],
        ..other(id, "in_progress")
    };
    let bench = Bench::with(Topology::Roles, |world| {
        world.github.workflows = vec!["migrate-state.yml".into()];
        world.github.runs = vec![at_it(50), at_it(51)];
    })
    .await;
    let second = workspace();
    let start = |workspace: &Workspace, id: u64| {
        let variables = variables(&bench, id, "apply", &[("INPUT_IN-FLIGHT-TIMEOUT", "60")]);
        (workspace.start(&variables), variables)
    };
    let (later, its) = start(&second, 51);
    // The later one stands at the check.
    let looks = |lab: &Lab| lab.log().iter().filter(|e| e.operation == "ListWorkflowJobs").count();
    let ran = tokio::task::block_in_place(|| {
        while !bench.lab.log().iter().any(|e| e.operation == "ListRepositoryRuns") {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        let (earlier, variables) = start(&bench.workspace, 50);
        bench.workspace.finish(earlier, &variables)
    })
    .green();
    assert_eq!(ran.output("rekeyed"), "2", "{}", ran.log);
    assert!(looks(&bench.lab) > 0);
    bench.lab.world().github.runs[0].status = "completed".into();
    let ran = tokio::task::block_in_place(|| second.finish(later, &its)).green();
    assert!(ran.log.contains("waiting for"), "{}", ran.log);
}

/// What was seen is not forgotten because a later look fails.
#[tokio::test(flavor = "multi_thread")]
async fn a_look_that_fails_while_it_is_waited_lets_nobody_pass() {
    let refusal = |status| Effect::Fail {
        status,
        code: "x".into(),
        message: "Resource not accessible by integration".into(),
    };
    for (status, said) in [(403, "not accessible"), (404, "not accessible"), (422, "422")] {
        let bench = repository(vec![other(4, "in_progress")]).await;
        bench.lab.inject(Matcher::every("ListRepositoryRuns").from(LISTS + 1), refusal(status));
        let more = [("INPUT_IN-FLIGHT-TIMEOUT", "3")];
        let ran = refused(&bench, &more).await;
        let log = &ran.log;
        assert!(log.contains("the last look failed") && log.contains(said), "{status}: {log}");
        assert!(log.contains(&link(4)), "{log}");
        assert_eq!(ran.check("no-run-in-flight"), "fail");
    }
    // One that passes by costs nothing but time.
    let bench = repository(vec![other(4, "in_progress")]).await;
    bench.lab.inject(Matcher::every("ListRepositoryRuns").nth(LISTS + 1), refusal(422));
    bench.lab.inject(
        Matcher::every("ListRepositoryRuns").nth(2 * LISTS + 4),
        Effect::Act(Box::new(|world| world.github.runs[0].status = "completed".into())),
    );
    let ran = run(&bench, "apply", &[("INPUT_IN-FLIGHT-TIMEOUT", "60")]).await.green();
    assert_eq!(ran.check("no-run-in-flight"), "pass");
}

/// Under `auto` only the missing right to look is excused.
#[tokio::test(flavor = "multi_thread")]
async fn an_outage_or_a_used_up_limit_is_no_permission_to_write() {
    let bench = repository(vec![other(4, "completed")]).await;
    let digest = bench.digest();
    bench.lab.world().github.rate_limited = true;
    let ran = run(&bench, "apply", &[]).await.red("run-in-flight");
    assert!(ran.log.contains("rate limit") && !ran.log.contains("actions: read"), "{}", ran.log);
    bench.lab.world().github.rate_limited = false;
    let lists = || Matcher::every("ListRepositoryRuns");
    let broken = || Effect::Fail { status: 502, code: "x".into(), message: "Server Error".into() };
    bench.lab.inject(lists(), broken());
    let ran = run(&bench, "apply", &[]).await.red("run-in-flight");
    assert!(ran.log.contains("502: Server Error"), "{}", ran.log);
    bench.assert_untouched(&digest);
    // A short one is outlasted.
    bench.lab.clear_faults();
    bench.lab.inject(lists().nth(3), broken());
    let ran = run(&bench, "apply", &[]).await.green();
    assert_eq!(ran.check("no-run-in-flight"), "pass");
}

/// It was asked for after this run, and before this run's approval: its backend.tf may be of
/// before the variable was set.
#[tokio::test(flavor = "multi_thread")]
async fn the_time_that_this_run_has_itself_waited_for_an_approval_counts() {
    let bench = repository(vec![other(55, "waiting")]).await;
    let began = |at: &str| {
        let mut world = bench.lab.world();
        world.github.runs[1].jobs = vec![
            job(1, "completed", "2026-11-24T02:00:50Z", ""),
            job(OWN, "in_progress", at, STEP),
        ];
    };
    began("2026-11-24T02:05:00Z");
    let ran = refused(&bench, &[]).await;
    assert!(ran.log.contains(&link(55)) && ran.log.contains("Reject it"), "{}", ran.log);
    began("2026-11-24T02:00:54Z");
    let _ = run(&bench, "apply", &[]).await.green();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_held_back_between_two_jobs_has_begun() {
    let held = WorkflowRun {
        jobs: vec![
            job(4, "completed", "2026-11-24T02:00:04Z", ""),
            job(4, "pending", "2026-11-24T02:00:05Z", ""),
        ],
        ..other(4, "pending")
    };
    let bench = repository(vec![held]).await;
    let ran = refused(&bench, &[]).await;
    assert!(ran.log.contains(&link(4)), "{}", ran.log);
}

/// A later run in a step of the same name, one of whose other jobs may be Terraform.
#[tokio::test(flavor = "multi_thread")]
async fn only_a_run_that_does_nothing_else_is_at_this_check() {
    let later = |jobs| vec![WorkflowRun { jobs, ..other(55, "in_progress") }];
    let at_it = job(55, "in_progress", "2026-11-24T02:00:55Z", STEP);
    let bench = repository(later(vec![at_it.clone()])).await;
    let _ = run(&bench, "apply", &[]).await.green();
    let terraform = job(56, "in_progress", "2026-11-24T02:00:55Z", "terraform apply");
    let bench = repository(later(vec![at_it, terraform])).await;
    let ran = run(&bench, "apply", &[]).await.red("run-in-flight");
    assert!(ran.log.contains(&link(55)), "{}", ran.log);
}

/// An old version that is re-keyed is a write as well.
#[tokio::test(flavor = "multi_thread")]
async fn a_re_key_of_old_versions_alone_is_not_begun_beside_another_run() {
    let bench = repository(vec![other(4, "in_progress")]).await;
    put_all_under_the_key(&mut bench.lab.world(), 20);
    let digest = bench.digest();
    let more = [("INPUT_HISTORY", "rekey"), ("INPUT_STRATEGY", "in-place")];
    let admin = variables_of("admin", &bench, OWN, "apply", &more);
    let ran = tokio::task::block_in_place(|| bench.workspace.run(&admin)).red("run-in-flight");
    bench.assert_untouched(&digest);
    assert!(ran.log.contains(&link(4)), "{}", ran.log);
}

/// GitHub shows this job in the step before it for a while, and the other run is in that one.
#[tokio::test(flavor = "multi_thread")]
async fn the_step_before_is_not_this_check() {
    let credentials = "AWS credentials";
    let jobs = vec![job(55, "in_progress", "2026-11-24T02:00:55Z", credentials)];
    let bench = repository(vec![WorkflowRun { jobs, ..other(55, "in_progress") }]).await;
    bench.lab.world().github.runs[1].jobs[0].step = Some(credentials.into());
    bench.lab.inject(
        Matcher::every("ListRepositoryRuns").nth(LISTS + 1),
        Effect::Act(Box::new(|world| world.github.runs[1].jobs[0].step = Some(STEP.into()))),
    );
    let ran = refused(&bench, &[]).await;
    assert!(ran.log.contains(&link(55)), "{}", ran.log);
}

/// The look that is made once more for one run does not forget another.
#[tokio::test(flavor = "multi_thread")]
async fn who_was_busy_at_the_first_look_is_not_forgotten() {
    let jobs = vec![job(55, "in_progress", "2026-11-24T02:00:55Z", STEP)];
    let at_it = WorkflowRun { jobs, ..other(55, "in_progress") };
    let bench = repository(vec![other(4, "in_progress"), at_it]).await;
    bench.lab.inject(
        Matcher::every("ListRepositoryRuns").nth(LISTS + 1),
        Effect::Act(Box::new(|world| world.github.runs[0].status = "completed".into())),
    );
    let ran = refused(&bench, &[]).await;
    assert!(ran.log.contains(&link(4)), "{}", ran.log);
}

/// Built before this run, and run again after it: its failed jobs alone keep the old file.
#[tokio::test(flavor = "multi_thread")]
async fn a_re_run_that_waits_for_an_approval_is_of_before() {
    let again_at = Some("2026-11-24T02:00:59Z".to_owned());
    let bench = repository(vec![WorkflowRun { again_at, ..other(4, "waiting") }]).await;
    let ran = refused(&bench, &[]).await;
    assert!(ran.log.contains("re-run all of its jobs"), "{}", ran.log);
}

/// An answer about jobs that does not come is no reason to call a run stale.
#[tokio::test(flavor = "multi_thread")]
async fn jobs_that_cannot_be_had_for_a_while_are_asked_for_again() {
    let bench = repository(vec![other(77, "waiting")]).await;
    let mut outage = Matcher::every("ListWorkflowJobs");
    // All attempts of both requests of a look.
    outage.count = 8;
    let broken = Effect::Fail { status: 502, code: "x".into(), message: "Server Error".into() };
    bench.lab.inject(outage, broken);
    let ran = run(&bench, "apply", &[("INPUT_IN-FLIGHT-TIMEOUT", "60")]).await.green();
    assert!(ran.log.contains("the last failed: 502"), "{}", ran.log);
    assert_eq!(ran.check("no-run-in-flight"), "pass");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_wait_writes_nothing() {
    let bench = repository(vec![other(4, "in_progress")]).await;
    let digest = bench.digest();
    let variables = variables(&bench, OWN, "apply", &[("INPUT_IN-FLIGHT-TIMEOUT", "600")]);
    let lists = |bench: &Bench| {
        let log = bench.lab.log();
        log.iter().filter(|entry| entry.operation == "ListRepositoryRuns").count()
    };
    // Between the second look and the third.
    let waits = |bench: &Bench| lists(bench) >= 2 * LISTS as usize;
    let (ran, seconds) = bench.interrupted(&variables, waits, "-INT");
    let ran = ran.red("cancelled");
    bench.assert_untouched(&digest);
    assert!(ran.log.contains("waiting for") && seconds < 5.0, "{seconds}: {}", ran.log);
}

fn evidence(ran: &Ran) -> String {
    let checks = ran.report["checks"].as_array().unwrap();
    let check = checks.iter().find(|check| check["id"] == "no-run-in-flight").unwrap();
    check["evidence"].as_str().unwrap().to_owned()
}

/// Under any name, in a called workflow or a local action.
#[tokio::test(flavor = "multi_thread")]
async fn auto_finds_every_workflow_of_the_checkout_that_may_write() {
    let of = |workflow: &str| WorkflowRun { workflow: workflow.into(), ..other(4, "in_progress") };
    let bench = repository(vec![of("deploy.yml")]).await;
    let action = bench.workspace.path().join(".github/actions/go");
    std::fs::create_dir_all(&action).unwrap();
    std::fs::write(action.join("action.yml"), "runs:\n  steps:\n    - run: tofu apply\n").unwrap();
    let writers = [
        ("deploy.yml", "steps:\n  - run: terraform -chdir=x apply\n"),
        ("caller.yml", "jobs:\n  a:\n    uses: ./.github/workflows/deploy.yml\n"),
        ("action.yaml", "steps:\n  - uses: ./.github/actions/go\n"),
        ("kms.yml", "steps:\n  - uses: cabalmail/tfstate-kms@v1\n"),
    ];
    for (name, text) in writers {
        check_out(&bench, name, text);
    }
    check_out(&bench, "made.yml", "steps:\n  - run: make deploy\n");
    for (name, _) in writers {
        bench.lab.world().github.runs[0] = of(name);
        let ran = refused(&bench, &[]).await;
        assert!(ran.log.contains(&link(4)), "{name}: {}", ran.log);
    }
    // Another branch's.
    bench.lab.world().github.runs[0] = of("nowhere-here.yml");
    let _ = refused(&bench, &[]).await;
    // One that runs a wrapper counts where it is named.
    bench.lab.world().github.runs[0] = of("made.yml");
    bench.lab.world().github.workflows.push("made.yml".into());
    let _ = refused(&bench, &[("INPUT_IN-FLIGHT", "auto made.yml")]).await;
    let ran = run(&bench, "apply", &[]).await.green();
    let said = evidence(&ran);
    let usual = ["infra.yml", "quiesce.yml", "destroy_terraform.yml", "migrate-state.yml"];
    for name in writers.map(|(name, _)| name).into_iter().chain(usual) {
        assert!(said.contains(name), "{name}: {said}");
    }
    assert!(!said.contains("lint.yml"), "{said}");
    assert!(said.contains("not seen: other repositories, `make deploy` in made.yml"), "{said}");
    let asked = bench.lab.log().iter().filter(|entry| entry.operation == "ListWorkflows").count();
    assert_eq!(asked, 1);
}

/// Without a checkout GitHub names the workflows, and all of them count.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_checkout_all_workflows_count() {
    let lint = |status| WorkflowRun { workflow: "lint.yml".into(), ..other(4, status) };
    let bench = not_checked_out(vec![lint("in_progress")]).await;
    // More than a page of them, and GitHub's own.
    let many = (0..150).map(|number| format!("w{number}.yml"));
    bench.lab.world().github.workflows.splice(0..0, many);
    // A checkout of another repository does not have this workflow.
    check_out(&bench, "else.yml", "steps: []\n");
    let ran = refused(&bench, &[]).await;
    assert!(ran.log.contains(&link(4)), "{}", ran.log);
    bench.lab.world().github.runs[0] = lint("completed");
    let ran = run(&bench, "apply", &[]).await.green();
    assert!(
        evidence(&ran).contains("infra.yml, lint.yml, migrate-state.yml"),
        "{}",
        evidence(&ran)
    );
    // Not having the right to look is never silent.
    bench.lab.world().github.permissions.clear();
    let ran = run(&bench, "plan", &[]).await.green();
    assert_eq!(ran.check("no-run-in-flight"), "unknown");
}

/// As texts «…:50.5Z» comes before «…:50Z», and «+00:00» before «Z».
#[tokio::test(flavor = "multi_thread")]
async fn times_are_compared_as_times_and_an_unknown_one_is_of_before() {
    for (created_at, stale) in [
        ("", true),
        ("yesterday", true),
        ("2026-11-24T02:00:49.9Z", true),
        ("2026-11-24T02:00:50.5Z", true),
        ("2026-11-24T04:00:49+02:00", true),
        ("2026-11-24T02:00:51.5+00:00", false),
        ("2026-11-24T01:00:51-01:00", false),
    ] {
        let run_of = WorkflowRun { created_at: created_at.into(), ..other(77, "waiting") };
        let bench = repository(vec![run_of]).await;
        if stale {
            let ran = refused(&bench, &[]).await;
            assert!(ran.log.contains("Reject it"), "{created_at}: {}", ran.log);
        } else {
            let _ = run(&bench, "apply", &[]).await.green();
        }
    }
}
