//! DynamoDB, as far as Terraform's lock tables go: GetItem (JSON 1.0; DynamoDB API Reference).

use serde_json::{Value, json};

use crate::world::{Failure, Principal, World};

/// Carries out one operation in a region.
pub(crate) fn call(
    world: &World,
    who: &Principal,
    region: &str,
    operation: &str,
    input: &Value,
) -> Result<Value, Failure> {
    if operation != "GetItem" {
        let message = format!("the lab does not know dynamodb:{operation}");
        return Err(Failure::new("UnknownOperationException", 400, message));
    }
    let name = input["TableName"].as_str().unwrap_or_default();
    let account = &who.identity.account;
    let arn = format!("arn:aws:dynamodb:{region}:{account}:table/{name}");
    world.may_call(who, "dynamodb:GetItem", &arn, account).map_err(|failure| {
        let code =
            if failure.code == "AccessDenied" { "AccessDeniedException" } else { failure.code };
        Failure::new(code, 400, failure.message)
    })?;
    let Some(table) = world.lock_tables.get(name) else {
        let message = "Requested resource not found";
        return Err(Failure::new("ResourceNotFoundException", 400, message));
    };
    let Some(id) = input["Key"]["LockID"]["S"].as_str() else {
        let message = "The provided key element does not match the schema";
        return Err(Failure::new("ValidationException", 400, message));
    };
    Ok(match table.get(id) {
        Some(info) => json!({ "Item": { "LockID": { "S": id }, "Info": { "S": info } } }),
        None => json!({}),
    })
}
