//! What is said of a state that was written and cannot be read: where it is as it was, no
//! more than was seen.

use aws_lab::{Effect, Encryption, Matcher, Topology};

use crate::bench::{Bench, overwriting, put_all_under_the_key};
use crate::common::{BUCKET, KEYS, Ran, state};

const IN_PLACE: &str = "Its bytes are those of before, under the wanted key";
const VERSION: &str = "The state as it was is the version";
const NOWHERE: &str = "No version of it is known to be kept";

/// The probe, too, makes requests.
const MORE: [(&str, &str); 2] = [("INPUT_STRATEGY", "in-place"), ("INPUT_PROBE", "off")];

fn refuse(bench: &Bench, operation: &str, from: u32) {
    let matcher = Matcher::every(operation).key(KEYS[0]).from(from);
    bench.lab.inject(matcher, Effect::fail(403, "AccessDenied"));
}

async fn in_place(bench: &Bench) -> Ran {
    bench.run_as("admin", "apply", &bench.key, &MORE).await.red("restore-failed")
}

fn says(ran: &Ran, wanted: &str) {
    for text in [IN_PLACE, VERSION, NOWHERE] {
        assert_eq!(ran.log.contains(text), text == wanted, "{text}: {}", ran.log);
    }
}

async fn versions(kept: bool) -> Bench {
    Bench::with(Topology::Roles, |world| {
        if !kept {
            world.bucket_mut(BUCKET).versioned = false;
            for key in KEYS {
                world.remove_object(BUCKET, key);
                world.put_object(BUCKET, key, state(7), Encryption::SseS3);
            }
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn in_place_and_not_readable_is_there_as_it_was() {
    let bench = versions(true).await;
    refuse(&bench, "GetObject", 2);
    refuse(&bench, "PutObject", 1);
    let ran = in_place(&bench).await;
    says(&ran, IN_PLACE);
    assert!(ran.log.contains("was written and could not be read back"), "{}", ran.log);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_writer_left_is_not_called_the_state_of_before() {
    for (kept, wanted) in [(true, VERSION), (false, NOWHERE)] {
        let bench = versions(kept).await;
        refuse(&bench, "GetObject", 3);
        // After the re-key in place, before its read-back.
        bench.before_nth("GetObject", KEYS[0], 2, |world| {
            world.put_object(BUCKET, KEYS[0], state(100), Encryption::SseS3);
        });
        says(&in_place(&bench).await, wanted);
        assert_eq!(bench.body(KEYS[0]), state(100));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_could_look_at_is_not_called_the_state_of_before() {
    for (kept, wanted) in [(true, VERSION), (false, NOWHERE)] {
        let bench = versions(kept).await;
        let sent = Matcher::every("UpdateObjectEncryption").key(KEYS[0]);
        bench.lab.inject(sent, Effect::ResetBefore);
        refuse(&bench, "GetObject", 2);
        refuse(&bench, "HeadObject", 1);
        let ran = in_place(&bench).await;
        says(&ran, wanted);
        assert!(ran.log.contains("may have been written"), "{}", ran.log);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_could_not_be_seen_is_not_called_the_re_keyed_state() {
    for (kept, wanted) in [(true, VERSION), (false, NOWHERE)] {
        let bench = versions(kept).await;
        refuse(&bench, "GetObject", 2);
        says(&in_place(&bench).await, wanted);
        // The restore is what is there.
        assert_eq!(bench.encryption(KEYS[0]), Encryption::SseS3);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_overwritten_state_that_cannot_be_put_back_is_found_in_its_version() {
    for (kept, wanted) in [(true, VERSION), (false, NOWHERE)] {
        let bench = Bench::with(Topology::Roles, |world| {
            for serial in 8..10 {
                world.put_object(BUCKET, KEYS[0], state(serial), Encryption::SseS3);
            }
            put_all_under_the_key(world, 20);
            if !kept {
                // Suspended: what is written next is the version `null`, and ends the last one.
                world.bucket_mut(BUCKET).versioned = false;
                put_all_under_the_key(world, 21);
            }
            overwriting(world);
        })
        .await;
        refuse(&bench, "PutObject", 1);
        let more = [("INPUT_HISTORY", "rekey"), MORE[0], MORE[1]];
        let ran = bench.run_as("admin", "apply", &bench.key, &more).await;
        let ran = ran.red("history-rekey-failed");
        assert!(ran.log.contains("IT COULD NOT BE RESTORED"), "{}", ran.log);
        says(&ran, wanted);
    }
}
