//! Terraform's locks in a DynamoDB table: looked at, never taken.

use aws_sdk_dynamodb::types::AttributeValue;

use super::error::classify;
use super::{Aws, AwsError};

impl Aws {
    /// What a lock table says of the holder of a lock; `None`: it is free. The item's key is
    /// `LockID`, its `Info` is what a lock object in S3 holds (Terraform:
    /// `internal/backend/remote-state/s3/client.go`).
    ///
    /// # Errors
    /// As classified.
    pub async fn lock_in_table(&self, table: &str, id: &str) -> Result<Option<String>, AwsError> {
        let config = aws_sdk_dynamodb::config::Builder::from(&self.config)
            .interceptor(self.requests.clone())
            .build();
        let answer = aws_sdk_dynamodb::Client::from_conf(config)
            .get_item()
            .table_name(table)
            .key("LockID", AttributeValue::S(id.to_owned()))
            .consistent_read(true)
            .send()
            .await
            .map_err(|error| classify("dynamodb:GetItem", &error))?;
        let text = |item: &std::collections::HashMap<String, AttributeValue>| {
            item.get("Info").and_then(|info| info.as_s().ok()).cloned().unwrap_or_default()
        };
        Ok(answer.item().map(text))
    }
}
