//go:build linux

package subject_test

import (
	"reflect"
	"testing"

	"github.com/eclitunnel/eclitunnel/test/run/bench/machine"
	"github.com/eclitunnel/eclitunnel/test/run/bench/subject"
)

func TestParsePeer_ReadsEveryKey(t *testing.T) {
	got, err := subject.ParsePeer("name=frp,tcp=127.0.0.1:7001,udp=127.0.0.1:7002,target=127.0.0.1:7999,pids=17,18,uplink=7000")
	if err != nil {
		t.Fatal(err)
	}
	want := subject.Peer{Target: "127.0.0.1:7999", Subject: subject.Subject{
		Name: "frp", TCP: "127.0.0.1:7001", UDP: "127.0.0.1:7002", PIDs: []int{17, 18},
		Uplink: []machine.Port{{Direction: machine.To, Number: 7000}},
	}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestParsePeer_RefusesWhatItCannotMeasure(t *testing.T) {
	for _, text := range []string{
		"",
		"name=frp,tcp=127.0.0.1:7001,target=127.0.0.1:7999",
		"name=frp,tcp=127.0.0.1,target=127.0.0.1:7999,pids=1",
		"name=frp,tcp=127.0.0.1:7001,target=127.0.0.1:7999,pids=one",
		"name=frp,tcp=127.0.0.1:7001,target=127.0.0.1:7999,pids=1,speed=9",
	} {
		if _, err := subject.ParsePeer(text); err == nil {
			t.Errorf("%q was taken", text)
		}
	}
}
