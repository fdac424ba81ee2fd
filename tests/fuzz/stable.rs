//! Runs what is fuzzed with proptest, on any toolchain: with noise, and with what is almost right.

#[expect(unreachable_pub, reason = "it is a library where it is fuzzed")]
#[path = "lib.rs"]
mod targets;

use proptest::prelude::*;

/// Returns bytes that look like `examples`, cut and put together, with noise in between.
fn like(examples: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> {
    let cut = (
        prop::sample::select(examples),
        any::<prop::sample::Index>(),
        any::<prop::sample::Index>(),
    )
        .prop_map(|(example, a, b)| {
            let (a, b) = (a.index(example.len() + 1), b.index(example.len() + 1));
            example.as_bytes()[a.min(b)..a.max(b)].to_vec()
        });
    let whole = prop::sample::select(examples).prop_map(|example| example.as_bytes().to_vec());
    let noise = prop::collection::vec(any::<u8>(), 0..4);
    prop::collection::vec(prop_oneof![2 => whole, 4 => cut, 1 => noise], 0..8)
        .prop_map(|pieces| pieces.concat())
}

macro_rules! run {
    ($($target:ident: $examples:expr;)*) => {
        proptest! {
            #![proptest_config(ProptestConfig::with_cases(4096))]
            $(
                #[test]
                fn $target(data in prop_oneof![3 => like($examples), 1 => any::<Vec<u8>>()]) {
                    targets::$target(&data);
                }
            )*
        }
    };
}

const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

run! {
    digest: &[DIGEST, "sha512:", "sha256", ":", "0", "A"];
    reference: &["library/debian", "latest", "..", "__", "-", "/", DIGEST];
    media: &["application/", "vnd.oci.image.manifest.v1+json", ";", " ", "charset=utf-8"];
    manifest: &[
        "application/vnd.oci.image.manifest.v1+json\n",
        "application/json\n",
        "{", "}", "[", "]", ",", ":", "null", "\"layers\":[]",
        r#"{"schemaVersion":2,"config":{"mediaType":"a","size":1,"digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}}"#,
        r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}"#,
    ];
    route: &[
        "GET\n/v2", "PUT\n/v2", "POST\n/v2", "/manifests/", "/blobs/", "/blobs/uploads/", "/tags/list", "/referrers/", "a",
        "/", "%2f", "?", "&", "tag=", "digest=", "mount=", "n=1", "last=", "ns=", "0190163d-8694-739b-aea5-966c26f8ad91",
        DIGEST,
    ];
    range: &["\0\0\0\0\0\0\0\0", "\u{1}\0\0\0\0\0\0\0", "\0\u{8}\0\0\0\0\0\0", "bytes=", "0-", "-5", "1-2", ",", "\"", "W/", "*", DIGEST];
    chunk_range: &["bytes ", "0-1023", "/2048", "/*", "18446744073709551615", "-"];
    config: &[
        "section.size=", "list.0.texts=", "\n", "text = 'x'\n", "[section]\n", "size = '1GiB'\n", "time = '5m'\n", "[[list]]\n",
        "texts = ['a']\n", "optional.number = 1\n", "[optional]\n", "secret_file = 'x'\n", ".", "=",
    ];
}
