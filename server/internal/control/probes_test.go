package control_test

import (
	"encoding/json"
	"testing"

	"github.com/google/uuid"
	"github.com/gorilla/websocket"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/db/dbtest"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/server/internal/control/controltest"
)

// ask asks a device for a probe, and returns its id.
func ask(t *testing.T, d *db.DB, device db.Device, allocation int64) uuid.UUID {
	t.Helper()
	id := uuid.New()
	question, err := json.Marshal(types.Probe{Subject: types.ProbeTarget, AllocationID: allocation})
	if err == nil {
		err = d.AskProbes(t.Context(), []db.Probe{{ID: id, DeviceID: device.ID, Question: question}})
	}
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func awaitAnswer(t *testing.T, d *db.DB, id uuid.UUID) string {
	t.Helper()
	var answer json.RawMessage
	controltest.Eventually(t, "the probe is answered", func() bool {
		answers, err := d.ProbeAnswers(t.Context(), []uuid.UUID{id})
		if err != nil {
			t.Fatal(err)
		}
		answer = answers[id]
		return answer != nil
	})
	return string(answer)
}

func TestHub_AsksADeviceThatTakesProbes(t *testing.T) {
	d := dbtest.New(t)
	startReplica(t, d)
	two := startReplica(t, d)
	client := enroll(t, d, db.KindClient)
	peer := two.dial(t, client)
	takes := true
	peer.Send(types.Hello{Type: types.TypeHello, AgentVersion: "1", Platform: "linux/amd64", Probes: &takes})
	controltest.Next[types.ClientSnapshot](peer)
	id := ask(t, d, client, 42)
	if m := controltest.Next[types.Probe](peer); m.ID != id || m.Subject != types.ProbeTarget || m.AllocationID != 42 {
		t.Fatalf("received %+v", m)
	}
	name := "Home\x1b[2J"
	peer.Send(types.ProbeResult{Type: types.TypeProbeResult, ID: id, Target: &types.ProbedTarget{
		Allowed: true, TCP: &types.ProbeReply{State: types.ProbeAnswered, Game: &types.GameStatus{Kind: types.GameMinecraftJava, Name: &name}},
	}})
	var result types.ProbeResult
	if answer := awaitAnswer(t, d, id); json.Unmarshal([]byte(answer), &result) != nil || *result.Target.TCP.Game.Name != "Home[2J" {
		t.Errorf("the answer is %s", answer)
	}
	peer.Send(types.ProbeResult{Type: types.TypeProbeResult, ID: id, Addresses: &[]types.ProbeReply{{State: "elsewhere"}}})
	if code := peer.Closed(controltest.Patience); code != websocket.ClosePolicyViolation {
		t.Errorf("closed with %d", code)
	}
}

func TestHub_TellsThatADeviceTakesNoProbes(t *testing.T) {
	d := dbtest.New(t)
	one := startReplica(t, d)
	client := enroll(t, d, db.KindClient)
	controltest.Next[types.ClientSnapshot](one.connect(t, client))
	if answer := awaitAnswer(t, d, ask(t, d, client, 42)); answer != "null" {
		t.Errorf("the answer is %s", answer)
	}
}
