package events_test

import (
	"context"
	"testing"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/db/dbtest"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/server/internal/live/events"
)

func TestUsage_GoesToTheOwnersOfItsAllocations(t *testing.T) {
	d := dbtest.New(t)
	ada, bob := newUser(t, d, "ada"), newUser(t, d, "bob")
	guild := dbtest.Organisation(t, d, "guild")
	dbtest.Member(t, d, guild, bob, "member")
	server := uuid.New()
	r := newReplica(t, d, func(o *events.Options) {
		o.Usage = func(_ context.Context, servers []uuid.UUID) ([]events.Usage, error) {
			if len(servers) != 1 || servers[0] != server {
				t.Errorf("usage of %v", servers)
			}
			return []events.Usage{
				{LiveUsage: types.LiveUsage{AllocationID: 1, Players: 3, Seconds: 5}, UserID: &ada},
				{LiveUsage: types.LiveUsage{AllocationID: 2, Players: 4, Seconds: 5}, OrganisationID: &guild},
			}, nil
		}
	})
	adas, bobs := r.follow(r.principal(follower{user: ada}), "/", ""), r.follow(r.principal(follower{user: bob}), "/", "")
	none := r.follow(r.principal(follower{user: ada}), "/?types=device", "")
	for _, s := range []*stream{adas, bobs, none} {
		s.want("ready")
	}
	before := adas.id
	sql := dbtest.SQL(t, d)
	for _, topic := range []string{"usage:" + server.String(), "usage:garbage"} {
		_, err := sql.ExecContext(t.Context(), `SELECT pg_notify('eclitunnel_live', $1)`, topic)
		check(t, err)
	}
	adas.want("usage 1: 3 players")
	bobs.want("usage 2: 4 players")
	if adas.id != before {
		t.Error("usage has an id")
	}
	newDevice(t, d, db.KindClient, "rig", ada, 0)
	none.want("device.created rig")
}
