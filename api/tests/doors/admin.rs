//! The admin socket: who can open it, and what stays in place.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use hyper_util::rt::TokioIo;
use rossby_api::admin::{
    AdminListener, BackupSource, InitPlan, IssuedToken, KnownToken, MadeCluster, MembersOrder,
    MembersProgress, NewGroup, NodeStatus, Operator, OperatorError, PlacementView, Standing,
};
use rossby_domain::ids::{BoxId, GroupId, MapVersion, NodeId, PartitionId};
use rossby_domain::placement::{
    ClusterMap, JoinAttempt, JoinToken, RegionName, SurvivalGoal, TokenRegion, TokenUse,
    TokenWanted,
};
use rossby_domain::query::{BoxView, ReportedBox};
use rossby_domain::time::Timestamp;
use rossby_proto::v1;
use rossby_proto::v1::admin_client::AdminClient;
use rossby_raft::ClockJump;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};
use zeroize::Zeroizing;

struct Node;

#[async_trait]
impl Operator for Node {
    fn status(&self) -> NodeStatus {
        let version = "1.2.3".to_owned();
        NodeStatus {
            node: NodeId(4),
            version,
            cluster: None,
            groups: Vec::new(),
            standing: Standing::Waiting,
            advice: None,
            region: RegionName::new("eu").unwrap(),
            map_version: MapVersion(3),
            data_groups: 2,
            steps: Vec::new(),
        }
    }

    async fn init_cluster(&self, plan: InitPlan) -> Result<MadeCluster, OperatorError> {
        Err(OperatorError::Refused(format!(
            "{} nodes are too few",
            plan.nodes.len()
        )))
    }

    async fn transfer_leader(
        &self,
        _: GroupId,
        to: Option<NodeId>,
    ) -> Result<NodeId, OperatorError> {
        Ok(to.unwrap_or(NodeId(9)))
    }

    async fn digests(
        &self,
        _: GroupId,
    ) -> Result<(u64, Vec<(PartitionId, [u8; 32])>), OperatorError> {
        Ok((17, vec![(PartitionId::new(3).unwrap(), [5; 32])]))
    }

    async fn change_members(
        &self,
        _: GroupId,
        order: MembersOrder,
    ) -> Result<MembersProgress, OperatorError> {
        Err(OperatorError::Refused(format!("{order:?}")))
    }

    fn check_one_group(&self) -> Result<(), OperatorError> {
        Err(OperatorError::Invalid("which group?".to_owned()))
    }

    async fn checkpoint(&self, _: GroupId) -> Result<u64, OperatorError> {
        Err(OperatorError::Unavailable("no quorum".to_owned()))
    }

    async fn confirm_time(&self, group: GroupId) -> Result<Option<ClockJump>, OperatorError> {
        let at = |millis| Timestamp::from_millis(millis);
        Ok((group == GroupId(1)).then(|| ClockJump {
            last: at(5),
            now: at(700_000_000),
        }))
    }

    async fn backup(&self, _: GroupId, _: bool) -> Result<BackupSource, OperatorError> {
        Err(OperatorError::Unavailable("no quorum".to_owned()))
    }

    async fn backup_elsewhere(
        &self,
        _: &v1::BackupRequest,
    ) -> Result<Option<tonic::Streaming<v1::BackupPart>>, OperatorError> {
        Ok(None)
    }

    async fn placement(&self) -> Result<PlacementView, OperatorError> {
        Ok(PlacementView {
            map: Arc::default(),
            groups: Vec::new(),
            silent: vec![NodeId(5)],
            steps: Vec::new(),
        })
    }

    async fn placement_history(&self) -> Result<Bytes, OperatorError> {
        Ok(Bytes::from_static(b"[]"))
    }

    async fn set_survive(&self, goal: SurvivalGoal) -> Result<MapVersion, OperatorError> {
        match goal {
            SurvivalGoal::Node => Ok(MapVersion(4)),
            SurvivalGoal::Region => Err(OperatorError::Refused("too few regions".to_owned())),
        }
    }

    async fn settle_node(&self, node: NodeId) -> Result<bool, OperatorError> {
        Ok(node == NodeId(5))
    }

    async fn set_draining(
        &self,
        node: NodeId,
        draining: bool,
    ) -> Result<(MapVersion, bool), OperatorError> {
        match draining {
            true => Ok((MapVersion(6), node == NodeId(5))),
            false => Err(OperatorError::Invalid("no such node".to_owned())),
        }
    }

    async fn add_group(
        &self,
        home: RegionName,
        partitions: Option<u16>,
    ) -> Result<NewGroup, OperatorError> {
        let partitions = partitions
            .ok_or_else(|| OperatorError::Refused(format!("nothing to spare for {home}")))?;
        Ok(NewGroup {
            group: GroupId(4),
            founders: vec![NodeId(5)],
            partitions,
        })
    }

    async fn issue_token(&self, wanted: TokenWanted) -> Result<IssuedToken, OperatorError> {
        Ok(IssuedToken {
            token: Zeroizing::new(format!("{:?}", wanted.region)),
            node: wanted.node.unwrap_or(NodeId(9)),
            expires_at: Timestamp::from_millis(wanted.valid_for_ms),
            peer_address: "a:1".to_owned(),
        })
    }

    async fn tokens(&self) -> Result<Vec<KnownToken>, OperatorError> {
        let token = |node, region, used| JoinToken {
            node: NodeId(node),
            region,
            expires_at: Timestamp::from_millis(7),
            used,
        };
        let eu = RegionName::new("eu").unwrap();
        let by = TokenUse::By(JoinAttempt([1; 16]));
        Ok(vec![
            KnownToken {
                token: token(4, TokenRegion::New(eu), by),
                peer_address: Some("a:4".to_owned()),
            },
            KnownToken {
                token: token(5, TokenRegion::Any, TokenUse::Revoked),
                peer_address: None,
            },
        ])
    }

    async fn revoke_token(&self, node: NodeId) -> Result<(), OperatorError> {
        match node {
            NodeId(5) => Ok(()),
            node => Err(OperatorError::Refused(format!("node {node} has joined"))),
        }
    }

    async fn suspend_box(&self, _: BoxId, suspended: bool) -> Result<bool, OperatorError> {
        Ok(suspended)
    }

    async fn reported_boxes(&self, at_least: u32) -> Result<Vec<ReportedBox>, OperatorError> {
        let box_id = BoxId::derive(PartitionId::new(3).unwrap(), &[1; 32]);
        let found = |reports| ReportedBox {
            box_id,
            reports,
            suspended: reports > 2,
        };
        Ok(vec![found(at_least + 1), found(at_least)])
    }

    async fn show_box(&self, _: BoxId) -> Result<BoxView, OperatorError> {
        Err(OperatorError::Refused("there is no such box".to_owned()))
    }
}

async fn client(path: &Path) -> AdminClient<Channel> {
    let path = path.to_owned();
    let connector = tower::service_fn(move |_: http::Uri| {
        let path = path.clone();
        async move {
            tokio::net::UnixStream::connect(path)
                .await
                .map(TokioIo::new)
        }
    });
    let channel = Endpoint::from_static("http://node")
        .connect_with_connector(connector)
        .await;
    AdminClient::new(channel.unwrap())
}

#[tokio::test]
async fn the_socket_is_the_owners_alone_and_goes_away_with_the_node() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("admin.sock");
    let stop = CancellationToken::new();
    // What a killed node left behind is in nobody's way.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let listener = AdminListener::bind(&path).unwrap();
    assert_eq!(
        std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let served = tokio::spawn(listener.serve(Arc::new(Node), stop.clone()));
    let status = client(&path)
        .await
        .status(v1::StatusRequest {})
        .await
        .unwrap()
        .into_inner();
    assert_eq!((status.node_id, status.cluster_id.as_str()), (4, ""));
    stop.cancel();
    served.await.unwrap().unwrap();
    assert!(!path.exists());
}

#[test]
fn a_file_under_the_sockets_name_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("admin.sock");
    std::fs::write(&path, "mine").unwrap();
    assert!(AdminListener::bind(&path).is_err());
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine");
}

#[tokio::test]
async fn orders_reach_the_node_and_refusals_come_back_typed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("admin.sock");
    let listener = AdminListener::bind(&path).unwrap();
    tokio::spawn(listener.serve(Arc::new(Node), CancellationToken::new()));
    let mut client = client(&path).await;

    let mut init = v1::InitClusterRequest {
        cluster_name: "c".to_owned(),
        partition_count: 3,
        nodes: Vec::new(),
        survive: String::new(),
    };
    let status = client.init_cluster(init.clone()).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::InvalidArgument);
    init.partition_count = 4;
    let status = client.init_cluster(init).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::FailedPrecondition);

    let transfer = v1::TransferLeaderRequest {
        group_id: 1,
        to_node_id: 0,
    };
    let leader = client
        .transfer_leader(transfer)
        .await
        .unwrap()
        .into_inner()
        .leader_node_id;
    assert_eq!(leader, 9);
    let digests = client
        .partition_digests(v1::PartitionDigestsRequest { group_id: 1 })
        .await;
    let digests = digests.unwrap().into_inner();
    assert_eq!((digests.applied_index, digests.digests.len()), (17, 1));
    let status = client
        .checkpoint(v1::CheckpointRequest { group_id: 1 })
        .await
        .unwrap_err();
    assert_eq!(status.code(), tonic::Code::Unavailable);
    for (group_id, last_ms) in [(1, Some(5)), (2, None)] {
        let confirmed = client
            .confirm_time(v1::ConfirmTimeRequest { group_id })
            .await;
        let jump = confirmed.unwrap().into_inner().jump;
        assert_eq!(jump.map(|jump| jump.last_ms), last_ms);
    }
}

#[tokio::test]
async fn so_many_reported_boxes_are_listed_as_are_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("admin.sock");
    let listener = AdminListener::bind(&path).unwrap();
    tokio::spawn(listener.serve(Arc::new(Node), CancellationToken::new()));
    let mut client = client(&path).await;
    for (limit, expected) in [(0, vec![]), (1, vec![3]), (9, vec![3, 2])] {
        let at_least = 2;
        let request = v1::ListReportedRequest { at_least, limit };
        let listed = client.list_reported(request).await.unwrap().into_inner();
        let reports: Vec<_> = listed.boxes.iter().map(|found| found.reports).collect();
        assert_eq!(reports, expected);
        assert!(
            listed
                .boxes
                .iter()
                .all(|found| found.suspended == (found.reports > 2))
        );
    }
}

#[tokio::test]
async fn what_is_asked_of_placement_reaches_the_node() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("admin.sock");
    let listener = AdminListener::bind(&path).unwrap();
    tokio::spawn(listener.serve(Arc::new(Node), CancellationToken::new()));
    let mut client = client(&path).await;

    let status = client
        .status(v1::StatusRequest {})
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        (
            status.region.as_str(),
            status.map_version,
            status.data_groups
        ),
        ("eu", 3, 2)
    );

    let view = client
        .placement(v1::PlacementRequest {})
        .await
        .unwrap()
        .into_inner();
    let map: ClusterMap = serde_json::from_slice(&view.map).unwrap();
    assert_eq!(map, ClusterMap::default());
    assert_eq!(view.silent_node_ids, [5]);

    let set = |survive: &str| {
        let request = v1::SetSurviveRequest {
            survive: survive.to_owned(),
        };
        let mut client = client.clone();
        async move { client.set_survive(request).await }
    };
    assert_eq!(set("node").await.unwrap().into_inner().map_version, 4);
    let refused = set("region").await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::FailedPrecondition);
    for nonsense in ["", "planet"] {
        let invalid = set(nonsense).await.unwrap_err();
        assert_eq!(invalid.code(), tonic::Code::InvalidArgument, "{nonsense}");
    }

    // An order about a whole node, where there are several groups.
    let order = v1::ChangeMembersRequest {
        whole_node: true,
        ..rossby_api::admin::members_request(
            GroupId(1),
            &MembersOrder::Add(NodeId(2), "a:1".to_owned()),
        )
    };
    let which = client.change_members(order).await.unwrap_err();
    assert_eq!(which.message(), "which group?");

    for (node, gone) in [(5, true), (6, false)] {
        let request = v1::SettleNodeRequest { node_id: node };
        let settled = client.settle_node(request).await.unwrap().into_inner();
        assert_eq!(settled.gone, gone);
    }

    for (node, changed) in [(5, true), (6, false)] {
        let request = v1::SetNodeStateRequest {
            node_id: node,
            draining: true,
        };
        let set = client.set_node_state(request).await.unwrap().into_inner();
        assert_eq!((set.map_version, set.changed), (6, changed));
    }
    let stranger = v1::SetNodeStateRequest {
        node_id: 9,
        draining: false,
    };
    let refused = client.set_node_state(stranger).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::InvalidArgument);
    let group = |region: &str, partitions: u32| v1::AddGroupRequest {
        region: region.to_owned(),
        partitions,
    };
    let added = client.add_group(group("eu", 3)).await.unwrap().into_inner();
    assert_eq!((added.group_id, added.partitions), (4, 3));
    assert_eq!(added.founder_node_ids, [5]);
    for (region, partitions, code) in [
        ("eu", 0, tonic::Code::FailedPrecondition),
        ("no such name", 3, tonic::Code::InvalidArgument),
        ("eu", 70_000, tonic::Code::InvalidArgument),
    ] {
        let refused = client.add_group(group(region, partitions)).await;
        assert_eq!(refused.unwrap_err().code(), code);
    }
    let token = |region: &str, new_region: bool| v1::IssueTokenRequest {
        node_id: 0,
        region: region.to_owned(),
        new_region,
        valid_for_ms: 5,
    };
    for (region, new, kind) in [
        ("", false, "Any"),
        ("eu", false, "Known"),
        ("eu", true, "New"),
    ] {
        let issued = client.issue_token(token(region, new)).await;
        let issued = issued.unwrap().into_inner();
        assert!(issued.token.starts_with(kind), "{}", issued.token);
        assert_eq!((issued.node_id, issued.expires_ms), (9, 5));
    }
    for (region, new) in [("", true), ("no such name", false)] {
        let refused = client.issue_token(token(region, new)).await;
        assert_eq!(refused.unwrap_err().code(), tonic::Code::InvalidArgument);
    }
    let listed = client.list_tokens(v1::ListTokensRequest {}).await.unwrap();
    let told = |token: &v1::JoinToken| {
        let v1::JoinToken {
            region,
            state,
            peer_address,
            ..
        } = token.clone();
        (token.node_id, region, token.new_region, state, peer_address)
    };
    let told: Vec<_> = listed.into_inner().tokens.iter().map(told).collect();
    let line = |node, region: &str, new, state: &str, address: &str| {
        (
            node,
            region.to_owned(),
            new,
            state.to_owned(),
            address.to_owned(),
        )
    };
    let used = line(4, "eu", true, "used", "a:4");
    assert_eq!(told, [used, line(5, "", false, "revoked", "")]);
    let revoke = |node_id| v1::RevokeTokenRequest { node_id };
    assert!(client.revoke_token(revoke(5)).await.is_ok());
    let refused = client.revoke_token(revoke(4)).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::FailedPrecondition);
}
