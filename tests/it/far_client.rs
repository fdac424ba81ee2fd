//! A client on a long link is not held down by what is done for those on short ones.

use std::fs;
use std::process::Command;

use harness::content::Content;
use harness::process::binary;
use tempfile::TempDir;

const BLOB_BYTES: u64 = 64 << 20;
/// One way.
const DELAY_SECONDS: &str = "0.05";
/// More than a send buffer of 256 KiB, of which the kernel makes at most the double, lets through in a round trip of 100 ms.
const BYTES_PER_SECOND_MIN: f64 = 7e6;

/// Starts an origin, pushes `blob` at $1, and pulls it over the link; says how many bytes came, and how many in a second.
const SCRIPT: &str = r#"
set -eu
"$0" origin --set listen=0.0.0.0:5001 --set admin_listen=127.0.0.1:5101 2>log &
trap 'kill $!; wait' EXIT
at=http://127.0.0.1:5001/v2/far/blobs
curl --silent --fail --retry 100 --retry-connrefused --retry-delay 1 http://127.0.0.1:5101/readyz >answer
location=$(curl --silent --fail --request POST --dump-header - --output answer $at/uploads/ |
    sed -n 's/^[Ll]ocation: \([^\r]*\).*/\1/p')
case $location in *\?*) mark='&' ;; *) mark='?' ;; esac
curl --silent --fail --upload-file blob "http://127.0.0.1:5001$location${mark}digest=$1" >answer
curl --silent --fail --output pulled --write-out '%{size_download} %{speed_download}' http://10.9.0.2:5001/v2/far/blobs/$1
"#;

#[test]
fn a_long_link_is_filled() {
    let directory = TempDir::new().unwrap();
    let content = Content::new(7, BLOB_BYTES);
    fs::write(directory.path().join("blob"), content.bytes()).unwrap();
    let link = concat!(env!("CARGO_MANIFEST_DIR"), "/harness/link.py");
    let output = Command::new("unshare")
        .args(["--net", "python3", link, DELAY_SECONDS])
        .args(["bash", "-c", SCRIPT])
        .arg(binary("outport"))
        .arg(content.sha256().to_string())
        .current_dir(directory.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said} {output:?}");
    let (bytes, bytes_per_second) = said.split_once(' ').unwrap();
    assert_eq!(bytes, BLOB_BYTES.to_string());
    let bytes_per_second: f64 = bytes_per_second.parse().unwrap();
    assert!(bytes_per_second > BYTES_PER_SECOND_MIN, "{said}");
}
