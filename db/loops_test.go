package db_test

import (
	"testing"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/db/dbtest"
)

func TestAllocations_RefuseATargetThatLeadsBack(t *testing.T) {
	d := dbtest.New(t)
	client, server := enroll(t, d, db.KindClient, nil), enroll(t, d, db.KindServer, nil)
	open := func(protocol string, port int, host string, local int) (db.Allocation, error) {
		request := newAllocation(client.ID, &server.ID, protocol)
		request.Port, request.LocalHost, request.LocalPort = port, host, local
		made, err := d.CreateAllocations(t.Context(), request)
		if err != nil {
			return db.Allocation{}, err
		}
		return made[0], nil
	}
	_, err := open("tcp", 20000, "play.example.com", 20000)
	wantErr(t, err, db.ErrLoop)
	_, err = open("udp", 20000, "Play.Example.com.", 20000)
	wantErr(t, err, db.ErrLoop)

	// To the port of the other protocol, to a port that nobody has, to another host.
	first, err := open("tcp", 20001, "play.example.com", 20002)
	check(t, err)
	_, err = open("udp", 20002, "play.example.com", 20001)
	check(t, err)
	_, err = open("tcp", 20004, "game.example.com", 20004)
	check(t, err)
	// A chain to a game is none.
	_, err = open("tcp", 20005, "play.example.com", 20004)
	check(t, err)

	// Crosswise, when the second one would close the circle; and by a third one.
	_, err = open("tcp", 20002, "play.example.com", 20001)
	wantErr(t, err, db.ErrLoop)
	third, err := open("tcp", 20002, "play.example.com", 20003)
	check(t, err)
	_, err = open("tcp", 20003, "play.example.com", 20001)
	wantErr(t, err, db.ErrLoop)

	// By a change of the target or of the public port, which then changes nothing.
	_, err = d.UpdateAllocation(t.Context(), everything, third.ID, db.AllocationPatch{LocalPort: ptr(20001)})
	wantErr(t, err, db.ErrLoop)
	_, err = d.UpdateAllocation(t.Context(), everything, first.ID, db.AllocationPatch{Port: ptr(20003)})
	wantErr(t, err, db.ErrLoop)
	kept, err := d.Allocation(t.Context(), everything, third.ID)
	check(t, err)
	if kept.LocalPort != 20003 {
		t.Errorf("the refused change left %+v", kept)
	}

	// The new public host of a tunnel server closes a circle: what does not concern it can
	// be changed all the same.
	circle, err := open("tcp", 20006, "later.example.com", 20006)
	check(t, err)
	_, err = d.UpdateDevice(t.Context(), everything, server.ID, db.DevicePatch{PublicHost: ptr("later.example.com")})
	check(t, err)
	_, err = d.UpdateAllocation(t.Context(), everything, circle.ID, db.AllocationPatch{Name: ptr("renamed")})
	check(t, err)
	_, err = d.UpdateAllocation(t.Context(), everything, circle.ID, db.AllocationPatch{LocalPort: ptr(20006)})
	wantErr(t, err, db.ErrLoop)
}
