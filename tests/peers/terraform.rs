//! The real backend client, before and after, for both stacks and both directions.

use aws_lab::{Encryption, Topology};

use crate::common::terraform::Terraform;
use crate::common::{BUCKET, KEYS, step};
use crate::{lab, peer, workspace};

#[tokio::test(flavor = "multi_thread")]
async fn plan_is_a_clean_no_op_after_each_step() {
    if peer("terraform").is_none() {
        return;
    }
    let terraform = Terraform::find().unwrap();
    for topology in [Topology::Roles, Topology::Users] {
        let (lab, key) = lab(topology).await;
        let workspace = workspace();
        let plan_both = || {
            for module in ["infra", "dns"] {
                let code = terraform.plan(&lab, "deploy", &workspace.module(module));
                assert_eq!(code, 0, "{topology:?} {module}");
            }
        };
        tokio::task::block_in_place(|| {
            let _ = workspace.run(&step(&lab, "deploy", "backend", "")).green();
            for module in ["infra", "dns"] {
                terraform.write_module(&workspace.module(module));
                terraform.apply(&lab, "deploy", &workspace.module(module));
            }
            plan_both();
            let before = KEYS.map(|key| lab.world().current(BUCKET, key).unwrap().body.to_vec());

            let _ = workspace.run(&step(&lab, "deploy", "apply", &key)).green();
            plan_both();
            for state in KEYS {
                let now = lab.world().current(BUCKET, state).unwrap().encryption.clone();
                assert_eq!(now, Encryption::Kms { key: key.clone() });
            }
            // Terraform's own next write stays under the key.
            let changed = "resource \"terraform_data\" \"more\" {}\n";
            std::fs::write(workspace.module("infra").join("more.tf"), changed).unwrap();
            terraform.apply(&lab, "deploy", &workspace.module("infra"));
            let now = lab.world().current(BUCKET, KEYS[0]).unwrap().encryption.clone();
            assert_eq!(now, Encryption::Kms { key: key.clone() });
            let ran = workspace.run(&step(&lab, "deploy", "verify", &key)).green();
            assert_eq!(ran.output("verified"), "true");

            let _ = workspace.run(&step(&lab, "deploy", "rollback", "")).green();
            plan_both();
            for state in KEYS {
                let now = lab.world().current(BUCKET, state).unwrap().encryption.clone();
                assert_eq!(now, Encryption::SseS3);
            }
            let after = lab.world().current(BUCKET, KEYS[1]).unwrap().body.to_vec();
            assert_eq!(after, before[1], "the untouched stack's state is the same, byte for byte");
        });
    }
}
