//! Listings, in pages.

use std::collections::BTreeSet;

use s3s::S3Result;
use s3s::dto::*;

use crate::s3_rules::{Call, context, failed, time};
use crate::world::Failure;

/// AWS: a page has no more than this.
const PAGE: usize = 1000;

fn limit(max_keys: Option<i32>) -> usize {
    max_keys.and_then(|max| usize::try_from(max).ok()).unwrap_or(PAGE).min(PAGE)
}

/// What a delimiter rolls this key up to.
fn common(key: &str, prefix: &str, delimiter: Option<&str>) -> Option<String> {
    let delimiter = delimiter.filter(|delimiter| !delimiter.is_empty())?;
    let at = key.get(prefix.len()..)?.find(delimiter)?;
    Some(key[..prefix.len() + at + delimiter.len()].to_owned())
}

fn prefixes(found: BTreeSet<String>) -> Option<CommonPrefixList> {
    let list: Vec<_> =
        found.into_iter().map(|prefix| CommonPrefix { prefix: Some(prefix) }).collect();
    Some(list).filter(|list| !list.is_empty())
}

pub(crate) fn objects(call: Call<'_, ListObjectsV2Input>) -> S3Result<ListObjectsV2Output> {
    let input = call.input;
    let prefix = input.prefix.clone().unwrap_or_default();
    let conditions = context(&[("s3:prefix", &prefix)]);
    call.may_under("s3:ListBucket", &input.bucket, None, conditions)?;
    let limit = limit(input.max_keys);
    let after = input.continuation_token.clone().or(input.start_after.clone()).unwrap_or_default();
    let (mut contents, mut rolled_up) = (Vec::new(), BTreeSet::new());
    let (mut last, mut truncated) = (None, false);
    for (key, versions) in &call.world.buckets[&input.bucket].objects {
        let Some(version) = versions.last().filter(|version| !version.delete_marker) else {
            continue;
        };
        let common = common(key, &prefix, input.delimiter.as_deref());
        // A page that ended with a common prefix does not come back to it.
        let seen = *key <= after || common.as_ref().is_some_and(|common| *common <= after);
        if !key.starts_with(&prefix) || seen || common.as_ref() == last.as_ref() && last.is_some() {
            continue;
        }
        if contents.len() + rolled_up.len() == limit {
            truncated = true;
            break;
        }
        last = Some(common.clone().unwrap_or_else(|| key.clone()));
        match common {
            Some(common) => {
                rolled_up.insert(common);
            }
            None => contents.push(Object {
                key: Some(key.clone()),
                e_tag: Some(ETag::Strong(version.etag.clone())),
                size: i64::try_from(version.size()).ok(),
                last_modified: Some(time(version.modified)),
                storage_class: Some(ObjectStorageClass::from(
                    version.storage_class.clone().unwrap_or_else(|| "STANDARD".to_owned()),
                )),
                ..Default::default()
            }),
        }
    }
    Ok(ListObjectsV2Output {
        name: Some(input.bucket.clone()),
        prefix: Some(prefix),
        delimiter: input.delimiter.clone(),
        max_keys: i32::try_from(limit).ok(),
        key_count: i32::try_from(contents.len() + rolled_up.len()).ok(),
        is_truncated: Some(truncated),
        continuation_token: input.continuation_token.clone(),
        start_after: input.start_after.clone(),
        next_continuation_token: last.filter(|_| truncated),
        contents: Some(contents),
        common_prefixes: prefixes(rolled_up),
        ..Default::default()
    })
}

/// AWS: by key, and the newest version of a key first.
pub(crate) fn versions(
    call: Call<'_, ListObjectVersionsInput>,
) -> S3Result<ListObjectVersionsOutput> {
    let input = call.input;
    let prefix = input.prefix.clone().unwrap_or_default();
    let conditions = context(&[("s3:prefix", &prefix)]);
    call.may_under("s3:ListBucketVersions", &input.bucket, None, conditions)?;
    let key_marker = input.key_marker.as_deref().unwrap_or_default();
    let version_marker = input.version_id_marker.as_deref().filter(|marker| !marker.is_empty());
    if key_marker.is_empty() && version_marker.is_some() {
        let message = "A version-id marker cannot be specified without a key marker.";
        return Err(failed(Failure::new("InvalidArgument", 400, message)));
    }
    let limit = limit(input.max_keys);
    let mut output = ListObjectVersionsOutput {
        name: Some(input.bucket.clone()),
        prefix: Some(prefix.clone()),
        delimiter: input.delimiter.clone(),
        max_keys: i32::try_from(limit).ok(),
        key_marker: Some(key_marker.to_owned()),
        version_id_marker: version_marker.map(str::to_owned),
        is_truncated: Some(false),
        ..Default::default()
    };
    let (mut versions, mut markers, mut rolled_up) = (Vec::new(), Vec::new(), BTreeSet::new());
    let mut last = (String::new(), None);
    let objects = &call.world.buckets[&input.bucket].objects;
    'page: for (key, all) in objects.iter().filter(|(key, _)| key.starts_with(&prefix)) {
        // With a version marker, a key goes on behind that version.
        let mut waiting = key.as_str() == key_marker && version_marker.is_some();
        if key.as_str() < key_marker || (key.as_str() == key_marker && !waiting) {
            continue;
        }
        let common = common(key, &prefix, input.delimiter.as_deref());
        if common.as_ref().is_some_and(|c| c.as_str() <= key_marker || rolled_up.contains(c)) {
            continue;
        }
        for (at, version) in all.iter().enumerate().rev() {
            if waiting {
                waiting = Some(version.version_id.as_str()) != version_marker;
                continue;
            }
            if versions.len() + markers.len() + rolled_up.len() == limit {
                output.is_truncated = Some(true);
                break 'page;
            }
            if let Some(common) = common {
                last = (common.clone(), None);
                rolled_up.insert(common);
                continue 'page;
            }
            last = (key.clone(), Some(version.version_id.clone()));
            let is_latest = Some(at + 1 == all.len());
            let (key, version_id) = (Some(key.clone()), Some(version.version_id.clone()));
            let last_modified = Some(time(version.modified));
            if version.delete_marker {
                markers.push(DeleteMarkerEntry {
                    key,
                    version_id,
                    is_latest,
                    last_modified,
                    ..Default::default()
                });
            } else {
                versions.push(ObjectVersion {
                    key,
                    version_id,
                    is_latest,
                    last_modified,
                    e_tag: Some(ETag::Strong(version.etag.clone())),
                    size: i64::try_from(version.size()).ok(),
                    storage_class: Some(ObjectVersionStorageClass::from(
                        version.storage_class.clone().unwrap_or_else(|| "STANDARD".to_owned()),
                    )),
                    ..Default::default()
                });
            }
        }
    }
    if output.is_truncated == Some(true) {
        (output.next_key_marker, output.next_version_id_marker) = (Some(last.0), last.1);
    }
    output.versions = Some(versions);
    output.delete_markers = Some(markers);
    output.common_prefixes = prefixes(rolled_up);
    Ok(output)
}
