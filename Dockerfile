# The static file and nothing else. Never built where it was written, where there is no Docker: `.ci/run` runs the same file as the same user
# in an empty root instead.
#
# dist/convoy-x86_64-linux is a release's file, or `cargo build --profile dist` with the flags that Cargo.toml says. Then:
#     docker build -t convoy .
#     docker run --rm -v "$PWD:/work" --user "$(id -u):$(id -g)" convoy run manifest.toml
FROM scratch
COPY --chmod=0755 dist/convoy-x86_64-linux /convoy
COPY LICENSE-APACHE LICENSE-MIT /
WORKDIR /work
USER 65532:65532
ENTRYPOINT ["/convoy"]
CMD ["--help"]
