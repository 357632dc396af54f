//! Just enough HTTP to read a page of a node.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const PATIENCE: Duration = Duration::from_secs(5);

/// The body of a page that is there; `None` if nobody answers, or with anything but 200.
pub(super) async fn page(address: SocketAddr, path: &str) -> Option<String> {
    tokio::time::timeout(PATIENCE, get(address, path))
        .await
        .ok()?
}

async fn get(address: SocketAddr, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).await.ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut response = String::new();
    stream.read_to_string(&mut response).await.ok()?;
    let (head, body) = response.split_once("\r\n\r\n")?;
    (head.split(' ').nth(1)? == "200").then(|| body.to_owned())
}

/// The value of a figure in the exposition format; of one that is labelled, the sum over all labels.
pub(super) fn figure(page: &str, name: &str) -> Option<u64> {
    let is_figure = |found: &str| found.split('{').next() == Some(name);
    let lines = page.lines().filter_map(|line| line.rsplit_once(' '));
    let values = lines.filter(|(found, _)| is_figure(found));
    let values = values.map(|(_, value)| value.trim().parse::<u64>().ok());
    values.reduce(|sum, value| Some(sum?.saturating_add(value?)))?
}

/// A figure that is labelled by group alone, of each group.
pub(super) fn by_group(page: &str, name: &str) -> BTreeMap<u32, u64> {
    let group_of = |found: &str| {
        let labels = found.strip_prefix(name)?;
        let group = labels.strip_prefix("{group=\"")?.strip_suffix("\"}")?;
        group.parse().ok()
    };
    let lines = page.lines().filter_map(|line| line.rsplit_once(' '));
    let values = lines.filter_map(|(found, value)| {
        let value = value.trim().parse().ok();
        Some((group_of(found)?, value?))
    });
    values.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_is_found_by_its_whole_name_and_summed_over_its_labels() {
        let page = "# HELP rossby_x 9\n# TYPE rossby_x gauge\nrossby_xy 7\nrossby_x 42\nrossby_z{a=\"b\"} 1\n\
                    rossby_z{a=\"c d\"} 2\n";
        assert_eq!(figure(page, "rossby_x"), Some(42));
        assert_eq!(figure(page, "rossby_"), None);
        assert_eq!(figure(page, "rossby_z"), Some(3));
    }

    #[test]
    fn a_figure_of_groups_is_told_of_each() {
        let page = "rossby_x{group=\"0\"} 1\nrossby_x{group=\"12\"} 7\nrossby_xy{group=\"3\"} 8\nrossby_x 9\n";
        assert_eq!(
            by_group(page, "rossby_x"),
            BTreeMap::from([(0, 1), (12, 7)])
        );
    }
}
