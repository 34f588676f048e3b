package control_test

import (
	"context"
	"sync"
	"testing"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/db/dbtest"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/channel"
	"github.com/eclitunnel/eclitunnel/server/internal/control"
	"github.com/eclitunnel/eclitunnel/server/internal/control/controltest"
)

// restored is a database that a backup replaces while channels are open.
type restored struct {
	*db.DB
	mu   sync.Mutex
	rows func(id uuid.UUID) (db.Channel, bool) // nil before.
}

func (r *restored) Channels(ctx context.Context, ids []uuid.UUID) (map[uuid.UUID]db.Channel, error) {
	r.mu.Lock()
	rows := r.rows
	r.mu.Unlock()
	if rows == nil {
		return r.DB.Channels(ctx, ids)
	}
	channels := map[uuid.UUID]db.Channel{}
	for _, id := range ids {
		if row, ok := rows(id); ok {
			channels[id] = row
		}
	}
	return channels, nil
}

func TestHub_OnlyWhatTheDatabaseKnowsIsFinal(t *testing.T) {
	for name, c := range map[string]struct {
		rows func(uuid.UUID) (db.Channel, bool)
		code int
	}{
		"never known":   {func(uuid.UUID) (db.Channel, bool) { return db.Channel{}, false }, channel.CloseRestarting},
		"older backup":  {func(uuid.UUID) (db.Channel, bool) { return db.Channel{TokenVersion: -1}, true }, channel.CloseRestarting},
		"deleted":       {func(uuid.UUID) (db.Channel, bool) { return db.Channel{Deleted: true}, true }, channel.CloseDeleted},
		"newer version": {func(uuid.UUID) (db.Channel, bool) { return db.Channel{TokenVersion: 1000}, true }, channel.CloseTokenDead},
	} {
		t.Run(name, func(t *testing.T) {
			store := &restored{DB: dbtest.New(t)}
			r := startReplica(t, store.DB, func(o *control.Options) { o.Store = store })
			device := enroll(t, store.DB, db.KindClient)
			peer := r.connect(t, device)
			controltest.Next[types.ClientSnapshot](peer)
			store.mu.Lock()
			store.rows = c.rows
			store.mu.Unlock()
			if _, err := store.UpdateSettings(t.Context(), db.SettingsPatch{}); err != nil { // Everything is read again.
				t.Fatal(err)
			}
			if code := peer.Closed(controltest.Patience); code != c.code {
				t.Errorf("closed with %d, want %d", code, c.code)
			}
		})
	}
}

func TestHub_ADeviceUnknownToTheDatabaseIsToldToComeBack(t *testing.T) {
	d := dbtest.New(t)
	r := startReplica(t, d)
	peer := r.connect(t, db.Device{ID: uuid.New(), Kind: db.KindClient, TokenVersion: 1})
	if code := peer.Closed(controltest.Patience); code != channel.CloseRestarting {
		t.Errorf("closed with %d", code)
	}
}

func TestHub_SnapshotsNameThePanel(t *testing.T) {
	d, panel := dbtest.New(t), uuid.New()
	r := startReplica(t, d, func(o *control.Options) { o.PanelID = func() uuid.UUID { return panel } })
	client, server := enroll(t, d, db.KindClient), enroll(t, d, db.KindServer)
	if got := controltest.Next[types.ClientSnapshot](r.connect(t, client)).PanelID; got == nil || *got != panel {
		t.Errorf("client: %v", got)
	}
	if got := controltest.Next[types.ServerSnapshot](r.connect(t, server)).PanelID; got == nil || *got != panel {
		t.Errorf("server: %v", got)
	}
}
