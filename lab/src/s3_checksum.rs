//! Checksums: the algorithm is kept with a version, the sum follows from its body.

use hyper::http::HeaderMap;
use s3s::S3Result;
use s3s::checksum::ChecksumHasher;
use s3s::crypto::{Checksum as _, Crc32, Crc32c, Crc64Nvme, Sha1, Sha256};
use s3s::dto::{Checksum, ChecksumType};

use crate::buckets::Version;
use crate::s3_rules::{failed, header};
use crate::world::Failure;

const ALGORITHMS: [&str; 5] = ["CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256"];

/// The checksum that was sent along, by its algorithm. AWS: it must be the body's, and S3
/// takes CRC64NVME where none was sent.
pub(crate) fn sent_checksum(headers: &HeaderMap, version: &Version) -> S3Result<String> {
    for algorithm in ALGORITHMS {
        let name = format!("x-amz-checksum-{}", algorithm.to_lowercase());
        let Some(sent) = header(headers, &name) else { continue };
        let sum = checksum_by(algorithm, &version.body);
        let right = [
            sum.checksum_crc32,
            sum.checksum_crc32c,
            sum.checksum_crc64nvme,
            sum.checksum_sha1,
            sum.checksum_sha256,
        ];
        if !right.into_iter().flatten().any(|right| right == sent) {
            let message =
                format!("The {algorithm} you specified did not match the calculated checksum.");
            return Err(failed(Failure::new("BadDigest", 400, message)));
        }
        return Ok(algorithm.to_owned());
    }
    Ok("CRC64NVME".to_owned())
}

/// The checksum of a version, where it has one.
pub(crate) fn checksum(version: &Version) -> Checksum {
    let Some(algorithm) = &version.checksum_algorithm else { return Checksum::default() };
    let sum = checksum_by(algorithm, &version.body);
    Checksum { checksum_type: Some(ChecksumType::from_static("FULL_OBJECT")), ..sum }
}

fn checksum_by(algorithm: &str, body: &[u8]) -> Checksum {
    let mut hasher = ChecksumHasher::default();
    match algorithm {
        "CRC32" => hasher.crc32 = Some(Crc32::new()),
        "CRC32C" => hasher.crc32c = Some(Crc32c::new()),
        "CRC64NVME" => hasher.crc64nvme = Some(Crc64Nvme::new()),
        "SHA1" => hasher.sha1 = Some(Sha1::new()),
        _ => hasher.sha256 = Some(Sha256::new()),
    }
    hasher.update(body);
    hasher.finalize()
}
