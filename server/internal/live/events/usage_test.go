package events_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/db/dbtest"
)

func TestUsage_GoesOnceToTheOwnersOfItsAllocations(t *testing.T) {
	d := dbtest.New(t)
	ada, bob := newUser(t, d, "ada"), newUser(t, d, "bob")
	guild := dbtest.Organisation(t, d, "guild")
	dbtest.Member(t, d, guild, bob, "member")
	server := newDevice(t, d, db.KindServer, "edge", 0, 0)
	adasPort := newAllocation(t, d, newDevice(t, d, db.KindClient, "rig", ada, 0), server, "game")
	guildsPort := newAllocation(t, d, newDevice(t, d, db.KindClient, "lan", 0, guild), server, "game")
	r := newReplica(t, d)
	adas, bobs := r.follow(r.principal(follower{user: ada}), "/", ""), r.follow(r.principal(follower{user: bob}), "/", "")
	none := r.follow(r.principal(follower{user: ada}), "/?types=device", "")
	for _, s := range []*stream{adas, bobs, none} {
		s.want("ready")
	}
	before := adas.id
	ended := time.Now()
	report := func(sequence int64, ended time.Time, allocation int64, players int) {
		t.Helper()
		check(t, d.AddUsage(t.Context(), server, db.UsageReport{
			Epoch: uuid.UUID{1}, Sequence: sequence, Ended: ended, Seconds: 10,
			Allocations: []db.AllocationUsage{{AllocationID: allocation, Players: players, PeakPlayers: players}},
		}))
	}
	// Two parts of one report, and another one.
	report(1, ended, adasPort, 3)
	adas.want(fmt.Sprintf("usage %d: 3 players", adasPort))
	report(2, ended, guildsPort, 4)
	bobs.want(fmt.Sprintf("usage %d: 4 players", guildsPort))
	report(3, ended.Add(time.Millisecond), adasPort, 5)
	adas.want(fmt.Sprintf("usage %d: 5 players", adasPort))
	if adas.id != before {
		t.Error("usage has an id")
	}
	newDevice(t, d, db.KindClient, "spare", ada, 0)
	none.want("device.created spare")
}
