package control_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/db/dbtest"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/channel"
	"github.com/eclitunnel/eclitunnel/server/internal/control"
	"github.com/eclitunnel/eclitunnel/server/internal/control/controltest"
)

var everything = db.Scope{All: true}

func TestHub_SendsSnapshotThenWhatDiffers(t *testing.T) {
	d := dbtest.New(t)
	r := startReplica(t, d)
	clientRow, serverRow := enroll(t, d, db.KindClient), enroll(t, d, db.KindServer)
	first := allocate(t, d, clientRow, serverRow, "tcp", 20001)

	server := r.connect(t, serverRow)
	served := controltest.Next[types.ServerSnapshot](server)
	if served.Revision != 1 || len(served.Allocations) != 1 || len(served.Clients) != 1 || len(served.Keys.Keys) != 1 {
		t.Fatalf("server snapshot %+v", served)
	}
	if got := served.Allocations[0]; got.ID != first.ID || got.Port != 20001 || got.ClientID != clientRow.ID {
		t.Errorf("server's allocation %+v", got)
	}
	client := r.connect(t, clientRow)
	snapshot := controltest.Next[types.ClientSnapshot](client)
	if snapshot.Revision != 1 || len(snapshot.Allocations) != 1 || len(snapshot.Servers) != 1 {
		t.Fatalf("client snapshot %+v", snapshot)
	}
	if got := snapshot.Allocations[0]; got.PublicAddress != "play.example.com:20001" || got.LocalPort != 25565 {
		t.Errorf("client's allocation %+v", got)
	}
	if got := snapshot.Servers[0]; got.Address != "play.example.com:7443" || got.Ticket == "" {
		t.Errorf("client's server %+v", got)
	}

	second := allocate(t, d, clientRow, serverRow, "udp", 20001)
	if got := controltest.Next[types.ClientChange](client); got.Revision != 2 || len(got.Allocations) != 1 || got.Allocations[0].ID != second.ID || len(got.Servers) != 0 {
		t.Errorf("client change %+v", got)
	}
	if got := controltest.Next[types.ServerChange](server); got.Revision != 2 || len(got.Allocations) != 1 || got.Keys != nil || len(got.Clients) != 0 {
		t.Errorf("server change %+v", got)
	}

	port := 19132
	if _, err := d.UpdateAllocation(t.Context(), everything, second.ID, db.AllocationPatch{LocalPort: &port}); err != nil {
		t.Fatal(err)
	}
	if got := controltest.Next[types.ClientChange](client); got.Revision != 3 || got.Allocations[0].LocalPort != 19132 {
		t.Errorf("client change %+v", got)
	}
	for _, a := range []db.Allocation{second, first} {
		if err := d.DeleteAllocation(t.Context(), everything, a.ID); err != nil {
			t.Fatal(err)
		}
		if got := controltest.Next[types.ClientChange](client); len(got.RemovedAllocations) != 1 || got.RemovedAllocations[0] != a.ID {
			t.Errorf("client change %+v", got)
		}
		// This is revision 3 of the server: it does not receive the local port.
		if got := controltest.Next[types.ServerChange](server); got.RemovedAllocations[0] != a.ID {
			t.Errorf("server change %+v", got)
		}
	}
}

func TestHub_OmitsServersWithoutARelayAddress(t *testing.T) {
	d := dbtest.New(t)
	r := startReplica(t, d)
	clientRow, serverRow := enroll(t, d, db.KindClient), enroll(t, d, db.KindServer)
	allocate(t, d, clientRow, serverRow, "tcp", 20001)
	client := r.connect(t, clientRow)
	if got := controltest.Next[types.ClientSnapshot](client); len(got.Servers) != 0 {
		t.Fatalf("snapshot %+v", got)
	}
	r.connect(t, serverRow)
	if got := controltest.Next[types.ClientChange](client); len(got.Servers) != 1 || got.Servers[0].ID != serverRow.ID {
		t.Errorf("change %+v", got)
	}
}

func TestHub_NewerChannelTakesOver(t *testing.T) {
	d := dbtest.New(t)
	for name, replicas := range map[string][2]*replica{
		"on one replica":      func() [2]*replica { r := startReplica(t, d); return [2]*replica{r, r} }(),
		"across two replicas": {startReplica(t, d), startReplica(t, d)},
	} {
		t.Run(name, func(t *testing.T) {
			clientRow, serverRow := enroll(t, d, db.KindClient), enroll(t, d, db.KindServer)
			older := replicas[0].connect(t, clientRow)
			controltest.Next[types.ClientSnapshot](older)
			newer := replicas[1].connect(t, clientRow)
			controltest.Next[types.ClientSnapshot](newer)
			if code := older.Closed(controltest.Patience); code != channel.CloseTakenOver {
				t.Errorf("older closed with %d", code)
			}
			// The end of the older channel must not take the device offline.
			controltest.Eventually(t, "device online", func() bool { return device(t, d, clientRow).Online })
			allocate(t, d, clientRow, serverRow, "tcp", 0)
			if got := controltest.Next[types.ClientChange](newer); len(got.Allocations) != 1 {
				t.Errorf("change %+v", got)
			}
			if !device(t, d, clientRow).Online {
				t.Error("offline after the older channel's end")
			}
		})
	}
}

func TestHub_ClosesInvalidChannelsWithinASecond(t *testing.T) {
	d := dbtest.New(t)
	r := startReplica(t, d)
	for name, test := range map[string]struct {
		act  func(db.Device) error
		code int
	}{
		"deleted": {func(dev db.Device) error { return d.DeleteDevice(t.Context(), everything, dev.ID) }, channel.CloseDeleted},
		"token regenerated": {func(dev db.Device) error {
			_, err := d.RegenerateToken(t.Context(), everything, dev.ID)
			return err
		}, channel.CloseTokenDead},
	} {
		t.Run(name, func(t *testing.T) {
			row := enroll(t, d, db.KindClient)
			peer := r.connect(t, row)
			controltest.Next[types.ClientSnapshot](peer)
			if err := test.act(row); err != nil {
				t.Fatal(err)
			}
			if code := peer.Closed(time.Second); code != test.code {
				t.Errorf("closed with %d", code)
			}
			if code := r.connect(t, row).Closed(controltest.Patience); code != test.code {
				t.Errorf("second try closed with %d", code)
			}
		})
	}
}

func TestHub_FeatureOffClosesAndRejectsChannels(t *testing.T) {
	d := dbtest.New(t)
	r := startReplica(t, d)
	row := enroll(t, d, db.KindClient)
	peer := r.connect(t, row)
	controltest.Next[types.ClientSnapshot](peer)

	setTunnels := func(on bool) {
		t.Helper()
		if _, err := d.UpdateSettings(t.Context(), db.SettingsPatch{TunnelsEnabled: &on}); err != nil {
			t.Fatal(err)
		}
	}
	setTunnels(false)
	if code := peer.Closed(controltest.Patience); code != channel.CloseFeatureOff {
		t.Errorf("closed with %d", code)
	}
	if code := r.connect(t, row).Closed(controltest.Patience); code != channel.CloseFeatureOff {
		t.Errorf("new one closed with %d", code)
	}
	controltest.Eventually(t, "device offline", func() bool { return !device(t, d, row).Online })

	setTunnels(true)
	controltest.Eventually(t, "channel stays", func() bool { return r.connect(t, row).Stays() })
}

func TestHub_ClosesChannelsThatViolateTheProtocol(t *testing.T) {
	d := dbtest.New(t)
	patient, hasty := startReplica(t, d), startReplica(t, d, func(o *control.Options) { o.HelloTimeout = 200 * time.Millisecond })
	client, server := enroll(t, d, db.KindClient), enroll(t, d, db.KindServer)
	hello := `{"type":"hello","agentVersion":"1","platform":"linux/amd64"}`
	for name, test := range map[string]struct {
		device   db.Device
		kind     int
		messages []string
		code     int
	}{
		"garbage":              {client, websocket.TextMessage, []string{"\x7f"}, websocket.CloseProtocolError},
		"binary":               {client, websocket.BinaryMessage, []string{hello}, websocket.CloseUnsupportedData},
		"oversized":            {client, websocket.TextMessage, []string{strings.Repeat(" ", 1<<20) + hello}, websocket.CloseMessageTooBig},
		"silence":              {client, 0, nil, websocket.ClosePolicyViolation},
		"no hello":             {client, websocket.TextMessage, []string{`{"type":"resync"}`}, websocket.ClosePolicyViolation},
		"server without relay": {server, websocket.TextMessage, []string{hello}, websocket.ClosePolicyViolation},
		"hello twice":          {client, websocket.TextMessage, []string{hello, hello}, websocket.ClosePolicyViolation},
		"garbage after hello":  {client, websocket.TextMessage, []string{hello, "{"}, websocket.CloseProtocolError},
		"a panel's message":    {client, websocket.TextMessage, []string{hello, `{"type":"client.snapshot","revision":1,"allocations":[],"servers":[]}`}, websocket.ClosePolicyViolation},
	} {
		t.Run(name, func(t *testing.T) {
			r := patient
			if len(test.messages) == 0 {
				r = hasty
			}
			peer := r.dial(t, test.device)
			for _, message := range test.messages {
				if err := peer.WS.WriteMessage(test.kind, []byte(message)); err != nil {
					t.Fatal(err)
				}
			}
			if code := peer.Closed(controltest.Patience); code != test.code {
				t.Errorf("closed with %d, want %d", code, test.code)
			}
		})
	}
}

func TestHub_StoresTheLatestReports(t *testing.T) {
	d := dbtest.New(t)
	r := startReplica(t, d)
	clientRow, serverRow := enroll(t, d, db.KindClient), enroll(t, d, db.KindServer)
	mine := allocate(t, d, clientRow, serverRow, "tcp", 20001)
	foreign := allocate(t, d, enroll(t, d, db.KindClient), serverRow, "tcp", 20002)

	client := r.connect(t, clientRow)
	revision := controltest.Next[types.ClientSnapshot](client).Revision
	reason := "nothing listens on 127.0.0.1:25565"
	client.Send(types.StatusReport{Type: types.TypeStatus, Revision: revision, Allocations: []types.AllocationReport{
		{ID: mine.ID, State: types.ReportReady},
		{ID: foreign.ID, State: types.ReportReady},
		{ID: mine.ID, State: types.ReportFailed, Reason: &reason},
	}})
	controltest.Eventually(t, "the report is stored", func() bool {
		a := allocation(t, d, mine.ID)
		return a.ClientState == db.StateFailed && a.ClientReason == reason
	})
	if a := allocation(t, d, foreign.ID); a.ClientState != db.StatePending {
		t.Errorf("a report on another device's allocation was stored: %+v", a)
	}
}

func TestHub_StoresWhetherTheTargetIsReached(t *testing.T) {
	d := dbtest.New(t)
	r := startReplica(t, d)
	clientRow := enroll(t, d, db.KindClient)
	made := allocate(t, d, clientRow, enroll(t, d, db.KindServer), "tcp", 20001)
	client := r.connect(t, clientRow)
	revision := controltest.Next[types.ClientSnapshot](client).Revision
	reason := "nothing listens on 127.0.0.1:25565"
	for _, c := range []struct {
		target *types.TargetState
		stored string
		reason string
	}{
		{new(types.TargetDown), db.TargetDown, reason},
		{new(types.TargetUp), db.TargetUp, ""}, // The reason explains nothing then.
		{new(types.TargetDown), db.TargetDown, reason},
		{nil, db.TargetUnknown, ""}, // From an agent that does not know of targets.
	} {
		client.Send(types.StatusReport{Type: types.TypeStatus, Revision: revision, Allocations: []types.AllocationReport{
			{ID: made.ID, State: types.ReportReady, Target: c.target, TargetReason: &reason},
		}})
		controltest.Eventually(t, "the target is "+c.stored, func() bool {
			a := allocation(t, d, made.ID)
			return a.ClientState == db.StateReady && a.Target == c.stored && a.TargetReason == c.reason
		})
	}
}

func TestHub_ResyncSendsSnapshotsAtABoundedRate(t *testing.T) {
	d := dbtest.New(t)
	r := startReplica(t, d)
	peer := r.connect(t, enroll(t, d, db.KindClient))
	controltest.Next[types.ClientSnapshot](peer)
	start := time.Now()
	for range 50 {
		peer.Send(types.ResyncRequest{Type: types.TypeResync})
	}
	if got := controltest.Next[types.ClientSnapshot](peer); got.Revision != 2 {
		t.Errorf("revision %d", got.Revision)
	}
	if took := time.Since(start); took < 500*time.Millisecond {
		t.Errorf("second snapshot after %v", took)
	}
	if n := peer.Waiting(); n > 0 {
		t.Errorf("one snapshot answers all requests, but %d more messages came", n)
	}
}

func TestHub_PresenceFollowsTheChannel(t *testing.T) {
	d := dbtest.New(t)
	r := startReplica(t, d)
	row := enroll(t, d, db.KindClient)
	peer := r.connect(t, row)
	controltest.Next[types.ClientSnapshot](peer)
	seen := device(t, d, row)
	if !seen.Online || seen.AgentVersion == nil || *seen.AgentVersion != "0.0.0-test" || *seen.Platform != "test/test" {
		t.Errorf("connected device %+v", seen)
	}
	peer.WS.Close()
	controltest.Eventually(t, "device offline", func() bool { return !device(t, d, row).Online })
}

func TestHub_ShutdownTellsDevicesToReconnect(t *testing.T) {
	d := dbtest.New(t)
	staying := startReplica(t, d)
	stopping := startReplica(t, d)
	clientRow, serverRow := enroll(t, d, db.KindClient), enroll(t, d, db.KindServer)
	client, server, silent := stopping.connect(t, clientRow), staying.connect(t, serverRow), stopping.dial(t, clientRow)
	controltest.Next[types.ClientSnapshot](client)
	controltest.Next[types.ServerSnapshot](server)
	stopping.shutdown()
	for _, p := range []*controltest.Peer{client, silent} {
		if code := p.Closed(controltest.Patience); code != channel.CloseRestarting {
			t.Errorf("closed with %d", code)
		}
	}
	controltest.Eventually(t, "its device is offline", func() bool { return !device(t, d, clientRow).Online })
	if !device(t, d, serverRow).Online {
		t.Error("another replica's device is offline")
	}
	if code := stopping.dial(t, clientRow).Closed(controltest.Patience); code != channel.CloseRestarting {
		t.Errorf("a late one closed with %d", code)
	}
}

func TestHub_RejectsRequestsWithoutDeviceOrUpgrade(t *testing.T) {
	r := startReplica(t, dbtest.New(t))
	url := "http" + strings.TrimPrefix(r.url, "ws")
	for who, want := range map[string]types.ErrorCode{
		"": types.CodeUnauthorized,
		`{"ID":"3f0e2a6c-6f0b-4c0e-9f57-0d6f3c2f9a11"}`: types.CodeInvalidRequest,
	} {
		resp := get(t, url, who)
		var body types.Problem
		if err := json.NewDecoder(resp.Body).Decode(&body); err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if body.Error != want {
			t.Errorf("answered %s: %+v", resp.Status, body)
		}
	}
}
