package control_test

import (
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/db/dbtest"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/server/internal/control"
	"github.com/eclitunnel/eclitunnel/server/internal/control/controltest"
)

func TestStats_CountChannelsByEnding(t *testing.T) {
	d := dbtest.New(t)
	r := startReplica(t, d)
	row := enroll(t, d, db.KindClient)
	ended := func(how control.Ending) {
		t.Helper()
		controltest.Eventually(t, "the end "+string(how)+" is counted", func() bool { return r.hub.Stats().Closed[how] == 1 })
	}
	shown := func(reason string) {
		t.Helper()
		controltest.Eventually(t, "the reason "+reason+" is shown", func() bool {
			device, err := d.Device(t.Context(), everything, row.ID)
			return err == nil && !device.Online && device.DisconnectReason != nil && *device.DisconnectReason == reason
		})
	}

	first := r.connect(t, row)
	controltest.Next[types.ClientSnapshot](first)
	second := r.connect(t, row)
	controltest.Next[types.ClientSnapshot](second)
	ended(control.EndTakenOver)
	if online := r.hub.Stats().Online; online[types.DeviceKindClient] != 1 || online[types.DeviceKindServer] != 0 {
		t.Errorf("online: %v", online)
	}
	bye := websocket.FormatCloseMessage(websocket.CloseGoingAway, "stopping")
	if err := second.WS.WriteControl(websocket.CloseMessage, bye, time.Now().Add(controltest.Patience)); err != nil {
		t.Fatal(err)
	}
	ended(control.EndLeft)
	shown("left")

	third := r.dial(t, row)
	third.Send(types.ResyncRequest{Type: types.TypeResync}) // Before its hello.
	ended(control.EndViolation)

	fourth := r.connect(t, row)
	controltest.Next[types.ClientSnapshot](fourth)
	fourth.WS.Close()
	ended(control.EndLost)
	shown("lost")

	fifth := r.connect(t, row)
	controltest.Next[types.ClientSnapshot](fifth)
	if err := d.DeleteDevice(t.Context(), everything, row.ID); err != nil {
		t.Fatal(err)
	}
	ended(control.EndDeleted)
	if s := r.hub.Stats(); s.Opened[types.DeviceKindClient] != 5 || len(s.Online) != 0 {
		t.Errorf("%+v", s)
	}
}
