package db_test

import (
	"encoding/json"
	"errors"
	"sync"
	"testing"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/db/dbtest"
	"github.com/eclitunnel/eclitunnel/internal/await"
)

func TestProbes_AreAskedOnceAndAnsweredByTheirDevice(t *testing.T) {
	d := dbtest.New(t)
	ada := createUser(t, d, "ada@example.com")
	client, other := enroll(t, d, db.KindClient, &ada), enroll(t, d, db.KindClient, &ada)
	events, err := d.Listen(t.Context())
	check(t, err)
	id, lost := uuid.New(), uuid.New()
	check(t, d.AskProbes(t.Context(), []db.Probe{
		{ID: id, DeviceID: client.ID, Question: json.RawMessage(`{"subject": "target"}`)}, {ID: lost, DeviceID: uuid.New(), Question: json.RawMessage(`{}`)},
	}))
	for found := false; !found; {
		found = await.Receive(t, events, "notification").DeviceID == client.ID
	}
	var took sync.WaitGroup
	counts := make(chan int, 8)
	for range cap(counts) {
		took.Go(func() {
			probes, err := d.TakeProbes(t.Context(), client.ID)
			if err != nil || len(probes) == 1 && (probes[0].ID != id || string(probes[0].Question) != `{"subject": "target"}`) {
				t.Errorf("%+v, %v", probes, err)
			}
			counts <- len(probes)
		})
	}
	took.Wait()
	close(counts)
	total := 0
	for n := range counts {
		total += n
	}
	if total != 1 {
		t.Errorf("it was taken %d times", total)
	}
	answers := func() int {
		t.Helper()
		answers, err := d.ProbeAnswers(t.Context(), []uuid.UUID{id, lost})
		check(t, err)
		if answer, ok := answers[id]; ok && string(answer) != `{"open": true}` {
			t.Errorf("the answer is %s", answer)
		}
		return len(answers)
	}
	check(t, d.AnswerProbe(t.Context(), other.ID, id, json.RawMessage(`{"open": false}`)))
	check(t, d.AnswerProbe(t.Context(), client.ID, lost, json.RawMessage(`{"open": false}`)))
	if n := answers(); n != 0 {
		t.Errorf("another device has answered: %d", n)
	}
	for _, answer := range []string{`{"open": true}`, `{"open": false}`} { // The second one is ignored.
		check(t, d.AnswerProbe(t.Context(), client.ID, id, json.RawMessage(answer)))
	}
	if n := answers(); n != 1 {
		t.Errorf("%d answers", n)
	}
	check(t, d.ForgetProbes(t.Context(), []uuid.UUID{id}))
	if n := answers(); n != 0 {
		t.Errorf("%d answers after they were forgotten", n)
	}
}

func TestProbes_AreForgottenInTime(t *testing.T) {
	d := dbtest.New(t)
	client := enroll(t, d, db.KindClient, nil)
	old := db.Probe{ID: uuid.New(), DeviceID: client.ID, Question: json.RawMessage(`{}`)}
	check(t, d.AskProbes(t.Context(), []db.Probe{old}))
	sql := dbtest.SQL(t, d)
	_, err := sql.ExecContext(t.Context(), `UPDATE probes SET created_at = now() - interval '1 minute'`)
	check(t, err)
	if probes, err := d.TakeProbes(t.Context(), client.ID); err != nil || len(probes) != 0 {
		t.Errorf("%+v, %v", probes, err)
	}
	check(t, d.AskProbes(t.Context(), []db.Probe{{ID: uuid.New(), DeviceID: client.ID, Question: json.RawMessage(`{}`)}}))
	var n int
	check(t, sql.QueryRowContext(t.Context(), `SELECT count(*) FROM probes`).Scan(&n))
	if n != 1 {
		t.Errorf("%d probes", n)
	}
	check(t, d.DeleteDevice(t.Context(), db.Scope{All: true}, client.ID))
}

func TestCheckedAllocation_IsManaged(t *testing.T) {
	d := dbtest.New(t)
	ada, grace := createUser(t, d, "ada@example.com"), createUser(t, d, "grace@example.com")
	client, server := enroll(t, d, db.KindClient, &ada), enroll(t, d, db.KindServer, nil)
	elsewhere := enroll(t, d, db.KindServer, nil)
	a := allocate(t, d, client.ID, server.ID)
	replica := startReplica(t, d)
	connect(t, d, server, replica)
	connect(t, d, elsewhere, replica)
	row, err := d.CheckedAllocation(t.Context(), db.Scope{UserID: ada}, a.ID)
	if err != nil || row.ID != a.ID || row.ServerName != server.Name || !row.ServerOnline || row.DeviceOnline {
		t.Errorf("%+v, %v", row, err)
	}
	if _, err := d.CheckedAllocation(t.Context(), db.Scope{UserID: grace}, a.ID); !errors.Is(err, db.ErrNotFound) {
		t.Errorf("somebody else's: %v", err)
	}
	servers, err := d.ProbeServers(t.Context(), server.ID, 5)
	if err != nil || len(servers) != 1 || servers[0].ID != elsewhere.ID {
		t.Errorf("%+v, %v", servers, err)
	}
}
