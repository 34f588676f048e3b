package control_test

import (
	"encoding/json"
	"net/http"
	"testing"

	"github.com/gorilla/websocket"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/db/dbtest"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/server/internal/control"
	"github.com/eclitunnel/eclitunnel/server/internal/control/controltest"
)

func TestHub_RefusesChannelsBeyondTheMaximum(t *testing.T) {
	d := dbtest.New(t)
	r := startReplica(t, d, func(o *control.Options) { o.MaxChannels = 2 })
	first, second := r.connect(t, enroll(t, d, db.KindClient)), r.connect(t, enroll(t, d, db.KindServer))
	third := enroll(t, d, db.KindClient)
	who, err := json.Marshal(control.Device{ID: third.ID, Kind: types.DeviceKindClient, TokenVersion: third.TokenVersion})
	if err != nil {
		t.Fatal(err)
	}
	_, resp, err := websocket.DefaultDialer.DialContext(t.Context(), r.url, http.Header{"Test-Device": {string(who)}})
	if err == nil || resp == nil || resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" {
		t.Fatalf("the third: %v, %v", resp, err)
	}
	controltest.Next[types.ClientSnapshot](first)
	controltest.Next[types.ServerSnapshot](second)
}
