package db_test

import (
	"testing"
	"time"

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

func TestAllocations_RefuseATargetThatLeadsBackByAnAddressOfThePublicHost(t *testing.T) {
	d := dbtest.New(t)
	client, other, servers := enroll(t, d, db.KindClient, nil), enroll(t, d, db.KindClient, nil), fleet(t, d, 2)
	for i, addresses := range [][]string{{"192.0.2.1", "2001:db8::1"}, {"192.0.2.2"}} {
		host := string(rune('a'+i)) + ".example.com"
		_, err := d.UpdateDevice(t.Context(), everything, servers[i].ID, db.DevicePatch{PublicHost: &host})
		check(t, err)
		check(t, d.SaveAddresses(t.Context(), servers[i].ID, host, db.JoinAddresses(addresses)))
	}
	open := func(client, server db.Device, protocol string, port int, host string, local int) error {
		request := newAllocation(client.ID, &server.ID, protocol)
		request.Port, request.LocalHost, request.LocalPort = port, host, local
		_, err := d.CreateAllocations(t.Context(), request)
		return err
	}
	wantErr(t, open(client, servers[0], "tcp", 20000, "192.0.2.1", 20000), db.ErrLoop)
	wantErr(t, open(client, servers[0], "udp", 20000, "2001:DB8::1", 20000), db.ErrLoop)
	check(t, open(client, servers[0], "tcp", 20000, "192.0.2.2", 20000))
	check(t, open(client, servers[0], "udp", 20001, "192.0.2.9", 20001))

	// Crosswise over two agents and two tunnel servers.
	wantErr(t, open(other, servers[1], "tcp", 20000, "2001:db8::1", 20000), db.ErrLoop)
	check(t, open(other, servers[1], "udp", 20000, "2001:db8::1", 20000))

	// Those of an earlier host say nothing about this one.
	_, err := d.UpdateDevice(t.Context(), everything, servers[1].ID, db.DevicePatch{PublicHost: ptr("c.example.com")})
	check(t, err)
	check(t, open(other, servers[1], "udp", 20002, "192.0.2.2", 20002))
}

func TestAllocations_RefuseAMoveOfOneWhoseTargetWouldLeadBack(t *testing.T) {
	d := dbtest.New(t)
	client, servers := enroll(t, d, db.KindClient, nil), fleet(t, d, 2)
	_, err := d.UpdateDevice(t.Context(), everything, servers[1].ID, db.DevicePatch{PublicHost: ptr("b.example.com")})
	check(t, err)
	request := newAllocation(client.ID, &servers[0].ID, "tcp")
	request.Port = 20000
	_, err = d.CreateAllocations(t.Context(), request)
	check(t, err)
	request.Protocols, request.LocalHost, request.LocalPort = []string{"udp"}, "b.example.com", 20000
	udp, err := d.CreateAllocations(t.Context(), request)
	check(t, err)
	all, err := d.Allocations(t.Context(), everything, db.Page[int64]{})
	check(t, err)
	for _, a := range all {
		_, err := d.UpdateAllocation(t.Context(), everything, a.ID, db.AllocationPatch{
			Port: ptr(20000), Move: &db.Move{ServerID: servers[1].ID, Linger: time.Hour},
		})
		wantErr(t, err, db.ErrLoop)
	}
	stay := func() {
		t.Helper()
		for _, a := range all {
			if now := readAllocation(t, d, a.ID); now.ServerID != servers[0].ID || now.Port != 20000 {
				t.Errorf("moved: %+v", now)
			}
		}
	}
	stay()

	// A drain moves them to the same port. It leaves them where they are, and moves others.
	_, err = d.DrainServer(t.Context(), everything, servers[0].ID, time.Hour, true)
	check(t, err)
	advanceDrains(t, d)
	advanceDrains(t, d)
	stay()
	if !readAllocation(t, d, udp[0].ID).Draining {
		t.Error("the port accepts players of a draining tunnel server")
	}
	_, err = d.UpdateAllocation(t.Context(), everything, udp[0].ID, db.AllocationPatch{LocalPort: ptr(20001)})
	check(t, err)
	advanceDrains(t, d)
	for _, a := range all {
		if now := readAllocation(t, d, a.ID); now.ServerID != servers[1].ID {
			t.Errorf("did not move: %+v", now)
		}
	}
}
