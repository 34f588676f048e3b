package events_test

import (
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/db/dbtest"
	"github.com/eclitunnel/eclitunnel/internal/await"
)

// TestStream_OutlivesTheTimeLimitsOfTheServer, which are a tenth of a second here.
func TestStream_OutlivesTheTimeLimitsOfTheServer(t *testing.T) {
	d := dbtest.New(t)
	r := newReplica(t, d)
	ada := newUser(t, d, "ada")
	device := newDevice(t, d, db.KindClient, "rig", ada, 0)
	s := r.follow(r.principal(follower{user: ada}), "/", "")
	s.want("ready")
	limit := time.After(500 * time.Millisecond)
	<-limit
	rename(t, d, device, "later")
	s.want("device.updated later")
}

func TestStream_ASlowReaderIsToldAndHoldsUpNobody(t *testing.T) {
	d := dbtest.New(t)
	r := newReplica(t, d)
	ada := newUser(t, d, "ada")
	device := newDevice(t, d, db.KindClient, "rig", ada, 0)
	for n := range 99 {
		newDevice(t, d, db.KindClient, numbered("many", n), ada, 0)
	}
	slow, fast := r.follow(r.principal(follower{user: ada}), "/", ""), r.follow(r.principal(follower{user: ada}), "/", "")
	check(t, slow.conn.(*net.TCPConn).SetReadBuffer(4096))
	slow.want("ready")
	fast.want("ready")
	sql := dbtest.SQL(t, d)
	rounds := 0
	await.Until(t, "reader too slow", func() bool {
		_, err := sql.ExecContext(t.Context(), `UPDATE devices SET platform = $1`, fmt.Sprint("round ", rounds))
		check(t, err)
		for range 100 {
			fast.next()
		}
		rounds++
		return r.Stats().Resyncs > 0
	})
	rename(t, d, device, "end")
	fast.want("device.updated end")
	// What was on its way comes, and then what is missing is named.
	got, last := 0, slow.next()
	for ; last != "resync"; last = slow.next() {
		if last == "" || got > 100*rounds {
			t.Fatalf("after %d events: %q", got, last)
		}
		got++
	}
	for ; last != "device.updated end"; last = slow.next() {
		if last == "" {
			t.Fatal("the stream has ended")
		}
	}
	t.Logf("%d rounds of 100 events; the slow one got %d before the resync", rounds, got)
}

func TestStream_ReplaysMoreThanAQueueHolds(t *testing.T) {
	d := dbtest.New(t)
	r := newReplica(t, d)
	ada, eve := newUser(t, d, "ada"), newUser(t, d, "eve")
	device := newDevice(t, d, db.KindClient, "rig", ada, 0)
	s := r.follow(r.principal(follower{user: ada}), "/", "")
	s.want("ready")
	rename(t, d, device, "first")
	s.want("device.updated first")
	for n := range 99 {
		newDevice(t, d, db.KindClient, numbered("many", n), ada, 0)
	}
	newDevice(t, d, db.KindClient, "eves", eve, 0)
	sql := dbtest.SQL(t, d)
	change := func(rounds int) {
		for n := range rounds {
			_, err := sql.ExecContext(t.Context(), `UPDATE devices SET platform = $1`, fmt.Sprint("round ", n))
			check(t, err)
		}
	}
	change(30)
	for name, r := range map[string]*replica{"the same replica": r, "another replica": newReplica(t, d)} {
		again := r.follow(r.principal(follower{user: ada}), "/", s.id)
		again.want("ready")
		if again.id != s.id {
			t.Errorf("%s: ready is at %s", name, again.id)
		}
		for range 99 + 30*100 {
			if got := again.next(); got == "" || got == "resync" {
				t.Fatalf("%s: %q", name, got)
			}
		}
	}
	change(25) // More than 5,000.
	late := r.follow(r.principal(follower{user: ada}), "/", s.id)
	late.want("ready", "resync")
	rename(t, d, device, "last")
	late.want("device.updated last")
}
