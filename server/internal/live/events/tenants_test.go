package events_test

import (
	"testing"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/db/dbtest"
	"github.com/eclitunnel/eclitunnel/gen/types"
)

// TestTenants_SeeTheirOwnOnly has everybody follow while devices of everybody change. The last change is one that
// everybody sees: whatever came before it, and was not wanted, was not theirs.
func TestTenants_SeeTheirOwnOnly(t *testing.T) {
	d := dbtest.New(t)
	r := newReplica(t, d)
	ada, bob, eve, root := newUser(t, d, "ada"), newUser(t, d, "bob"), newUser(t, d, "eve"), newUser(t, d, "root")
	_, err := d.UpdateUser(t.Context(), root, db.UserPatch{Role: new("admin")})
	check(t, err)
	guild, clan := dbtest.Organisation(t, d, "guild"), dbtest.Organisation(t, d, "clan")
	dbtest.Member(t, d, guild, ada, "owner")
	dbtest.Member(t, d, guild, bob, "member")
	dbtest.Member(t, d, clan, eve, "owner")
	server := newDevice(t, d, db.KindServer, "server", root, 0)
	adas, eves := newDevice(t, d, db.KindClient, "adas", ada, 0), newDevice(t, d, db.KindClient, "eves", eve, 0)
	shared := newDevice(t, d, db.KindClient, "shared", 0, guild)
	game, other := newAllocation(t, d, adas, server, "game"), newAllocation(t, d, eves, server, "other")

	key := func(f follower, scopes ...string) follower { f.scopes = scopes; return f }
	callers := map[string]struct {
		follower
		path string
		want []string
	}{
		"owner":                    {follower{user: ada}, "", []string{"device.updated a1", "allocation.updated g1", "device.updated s1"}},
		"owner, devices":           {follower{user: ada}, "?types=device", []string{"device.updated a1", "device.updated s1"}},
		"owner, allocations":       {follower{user: ada}, "?types=allocation", []string{"allocation.updated g1"}},
		"member":                   {follower{user: bob}, "", []string{"device.updated s1"}},
		"stranger":                 {follower{user: eve}, "", []string{"device.updated e1", "allocation.updated o1"}},
		"admin":                    {follower{user: root, admin: true}, "", []string{"device.updated a1", "allocation.updated g1", "device.updated e1", "allocation.updated o1", "device.updated v1", "device.updated s1"}},
		"admin's key":              {key(follower{user: root, admin: true}, "read"), "", []string{"device.updated v1"}},
		"admin's key, scope admin": {key(follower{user: root, admin: true}, "read", "admin"), "?types=allocation", []string{"allocation.updated g1", "allocation.updated o1"}},
		"key, devices":             {key(follower{user: ada}, "devices"), "", []string{"device.updated a1", "device.updated s1"}},
		"key, allocations":         {key(follower{user: ada}, "allocations"), "", []string{"allocation.updated g1"}},
		"organisation's key":       {key(follower{organisation: guild}, "read"), "", []string{"device.updated s1"}},
		"other organisation's key": {key(follower{organisation: clan}, "read"), "", nil},
	}
	streams := map[string]*stream{}
	for name, c := range callers {
		streams[name] = r.follow(r.principal(c.follower), "/"+c.path, "")
		streams[name].want("ready")
	}
	rename(t, d, adas, "a1")
	_, err = d.UpdateAllocation(t.Context(), everything, game, db.AllocationPatch{Name: new("g1")})
	check(t, err)
	rename(t, d, eves, "e1")
	_, err = d.UpdateAllocation(t.Context(), everything, other, db.AllocationPatch{Name: new("o1")})
	check(t, err)
	rename(t, d, server, "v1")
	rename(t, d, shared, "s1")
	for name, c := range callers {
		t.Run(name, func(t *testing.T) {
			s := streams[name]
			s.t = t
			s.want(c.want...)
		})
	}
	// Now something of each comes last.
	for _, device := range []struct{ user, organisation int64 }{{ada, 0}, {eve, 0}, {root, 0}, {0, guild}, {0, clan}} {
		newAllocation(t, d, newDevice(t, d, db.KindClient, "last", device.user, device.organisation), server, "last")
	}
	for name, s := range streams {
		if got := s.next(); got != "device.created last" && got != "allocation.created last" {
			t.Errorf("%s: %s", name, got)
		}
	}
}

func TestTenants_ATransferIsADeletionForTheFormerOwner(t *testing.T) {
	d := dbtest.New(t)
	r := newReplica(t, d)
	ada, bob, eve := newUser(t, d, "ada"), newUser(t, d, "bob"), newUser(t, d, "eve")
	guild := dbtest.Organisation(t, d, "guild")
	dbtest.Member(t, d, guild, bob, "owner")
	dbtest.Member(t, d, guild, eve, "owner")
	client, server := newDevice(t, d, db.KindClient, "rig", ada, 0), newDevice(t, d, db.KindServer, "server", 0, 0)
	newAllocation(t, d, client, server, "game")
	streams := map[int64]*stream{}
	for _, user := range []int64{ada, bob, eve} {
		streams[user] = r.follow(r.principal(follower{user: user}), "/", "")
		streams[user].want("ready")
	}
	give := func(owner db.NewOwner) {
		t.Helper()
		_, err := d.UpdateDevice(t.Context(), everything, client, db.DevicePatch{Owner: &owner})
		check(t, err)
	}
	give(db.NewOwner{OrganisationID: &guild})
	streams[ada].want("device.deleted", "allocation.deleted")
	streams[bob].want("device.created rig", "allocation.created game")
	streams[eve].want("device.created rig", "allocation.created game")
	give(db.NewOwner{UserID: &bob}) // Who has seen it before.
	streams[bob].want("device.updated rig", "allocation.updated game")
	streams[eve].want("device.deleted", "allocation.deleted")
	give(db.NewOwner{UserID: &ada})
	streams[ada].want("device.created rig", "allocation.created game")
	streams[bob].want("device.deleted", "allocation.deleted")
}

func TestTenants_WhoSeesOtherThingsNowReadsEverythingAgain(t *testing.T) {
	d := dbtest.New(t)
	r := newReplica(t, d)
	ada := newUser(t, d, "ada")
	guild := dbtest.Organisation(t, d, "guild")
	other, root := newUser(t, d, "other"), newUser(t, d, "root")
	_, err := d.UpdateUser(t.Context(), root, db.UserPatch{Role: new("admin")})
	check(t, err)
	dbtest.Member(t, d, guild, other, "owner")
	shared, foreign := newDevice(t, d, db.KindClient, "shared", 0, guild), newDevice(t, d, db.KindClient, "foreign", other, 0)
	s := r.follow(r.principal(follower{user: ada}), "/", "")
	s.want("ready")
	rename(t, d, shared, "unseen")
	dbtest.Member(t, d, guild, ada, "member")
	s.want("resync")
	rename(t, d, shared, "seen")
	s.want("device.updated seen")
	check(t, d.RemoveMember(t.Context(), everything, guild, ada))
	s.want("resync")
	rename(t, d, shared, "unseen again")
	_, err = d.UpdateUser(t.Context(), ada, db.UserPatch{Role: new("admin")})
	check(t, err)
	s.want("resync")
	rename(t, d, foreign, "all")
	s.want("device.updated all")
	_, err = d.UpdateUser(t.Context(), ada, db.UserPatch{Role: new(string(types.RoleUser))})
	check(t, err)
	s.want("resync")
	_, err = d.UpdateUser(t.Context(), ada, db.UserPatch{Suspended: new(true)})
	check(t, err)
	s.want("")
}
