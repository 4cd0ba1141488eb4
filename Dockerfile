# The action's image: the binary, the glibc it is linked with and the CA
# certificates, nothing else. No USER, no WORKDIR and an absolute exec-form
# ENTRYPOINT: the runner mounts the workspace as root and sets the directory
# itself, and a shell between the runner and the binary would drop the inputs
# whose names have a hyphen.
#
# There is no `# syntax=` line on purpose: the built-in BuildKit frontend knows
# all that is used here, so building needs no further image.

# Dependabot sees the default as a stage of its own, not inside an ARG. BuildKit does not
# look at a stage that nothing needs, so another RUST_IMAGE builds without it. A release
# gives the digest.
ARG RUST_IMAGE=rust-default
FROM rust:1.95-slim-bookworm AS rust-default

# hadolint ignore=DL3006
FROM ${RUST_IMAGE} AS build

SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
WORKDIR /src
ENV CARGO_HOME=/usr/local/cargo \
    CARGO_TERM_COLOR=never

# Manifests and empty sources first: this layer holds every dependency compiled
# and lasts until a manifest or the lock file changes.
COPY Cargo.toml Cargo.lock ./
COPY lab/Cargo.toml lab/Cargo.toml
RUN mkdir -p src lab/src \
    && touch src/lib.rs lab/src/lib.rs \
    && echo 'fn main() {}' | tee src/main.rs > lab/src/main.rs
# The optional secret `ca-bundle` stands in for the image's CA bundle while cargo
# downloads, for networks that inspect TLS; it is never part of a layer.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=secret,id=ca-bundle,target=/etc/ssl/certs/ca-certificates.crt \
    cargo build --release --locked --bin tfstate-kms

# The copied sources are older than the stubs' build products; without the touch
# cargo would take the stubs for current.
COPY src src
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=secret,id=ca-bundle,target=/etc/ssl/certs/ca-certificates.crt \
    touch src/lib.rs src/main.rs \
    && cargo build --release --locked --bin tfstate-kms

# What the binary needs at run time. The dpkg entries of the packages that the
# files come from let image scanners see the versions.
RUN mkdir -p /rootfs/etc/ssl/certs /rootfs/var/lib/dpkg/status.d \
    && install -d -m 1777 /rootfs/tmp \
    && ldd target/release/tfstate-kms | grep -o '/lib[^ ]*' \
        | xargs cp --dereference --parents --target-directory=/rootfs \
    && cp /etc/ssl/certs/ca-certificates.crt /rootfs/etc/ssl/certs/ \
    && cp /etc/os-release /rootfs/etc/ \
    && echo 'hosts: files dns' > /rootfs/etc/nsswitch.conf \
    && echo 'root:x:0:0:root:/root:/sbin/nologin' > /rootfs/etc/passwd \
    && echo 'root:x:0:' > /rootfs/etc/group \
    && for package in base-files ca-certificates libc6 libgcc-s1; do \
        dpkg-query --status "$package" > "/rootfs/var/lib/dpkg/status.d/$package"; \
    done

FROM scratch

COPY --from=build /rootfs /
COPY --from=build /src/target/release/tfstate-kms /usr/local/bin/tfstate-kms
COPY LICENSE /usr/share/doc/tfstate-kms/LICENSE

ARG VERSION=dev
ARG REVISION=unknown
LABEL org.opencontainers.image.title="tfstate-kms" \
      org.opencontainers.image.description="Keeps Terraform state in S3 under a customer-managed KMS key" \
      org.opencontainers.image.source="https://github.com/cabalmail/tfstate-kms" \
      org.opencontainers.image.documentation="https://github.com/cabalmail/tfstate-kms#readme" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"

ENTRYPOINT ["/usr/local/bin/tfstate-kms"]
