package game

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"time"
)

// RakNet's offline messages used here.
const (
	idUnconnectedPing = 0x01
	idUnconnectedPong = 0x1c
)

// offlineMessageID marks a datagram as one of RakNet's offline messages.
var offlineMessageID = [16]byte{
	0x00, 0xff, 0xff, 0x00, 0xfe, 0xfe, 0xfe, 0xfe,
	0xfd, 0xfd, 0xfd, 0xfd, 0x12, 0x34, 0x56, 0x78,
}

const (
	pingLength = 1 + 8 + 16 + 8     // number, time, mark, the player's GUID
	pongHeader = 1 + 8 + 8 + 16 + 2 // number, time, the server's GUID, mark, the text's length

	// pingInterval is how often a player asks again: a datagram may get lost.
	pingInterval = 500 * time.Millisecond
)

func appendPing(b []byte, clock, guid uint64) []byte {
	b = append(b, idUnconnectedPing)
	b = binary.BigEndian.AppendUint64(b, clock)
	b = append(b, offlineMessageID[:]...)
	return binary.BigEndian.AppendUint64(b, guid)
}

// parsePing reports the player's clock, and whether the datagram is a ping.
func parsePing(datagram []byte) (clock uint64, ok bool) {
	if len(datagram) != pingLength || datagram[0] != idUnconnectedPing {
		return 0, false
	}
	if [16]byte(datagram[9:25]) != offlineMessageID {
		return 0, false
	}
	return binary.BigEndian.Uint64(datagram[1:9]), true
}

func appendPong(b []byte, clock, guid uint64, s Status) []byte {
	text := strings.Join([]string{
		"MCPE", strings.ReplaceAll(s.MOTD, ";", ","), strconv.Itoa(s.Protocol), s.Version,
		strconv.Itoa(s.Online), strconv.Itoa(s.Max), strconv.FormatUint(guid, 10),
		"EcliTunnel", "Survival", "1",
	}, ";") + ";"
	b = append(b, idUnconnectedPong)
	b = binary.BigEndian.AppendUint64(b, clock)
	b = binary.BigEndian.AppendUint64(b, guid)
	b = append(b, offlineMessageID[:]...)
	b = binary.BigEndian.AppendUint16(b, uint16(len(text)))
	return append(b, text...)
}

func parsePong(datagram []byte) (clock uint64, s Status, err error) {
	if len(datagram) < pongHeader || datagram[0] != idUnconnectedPong {
		return 0, Status{}, errors.New("not an unconnected pong")
	}
	clock = binary.BigEndian.Uint64(datagram[1:9])
	text := datagram[pongHeader:]
	if int(binary.BigEndian.Uint16(datagram[pongHeader-2:pongHeader])) != len(text) {
		return 0, Status{}, errors.New("pong was cut")
	}
	fields := strings.Split(string(text), ";")
	if len(fields) < 6 || fields[0] != "MCPE" {
		return 0, Status{}, fmt.Errorf("pong says %q", text)
	}
	s = Status{MOTD: fields[1], Version: fields[3]}
	for i, field := range map[int]*int{2: &s.Protocol, 4: &s.Online, 5: &s.Max} {
		if *field, err = strconv.Atoi(fields[i]); err != nil {
			return 0, Status{}, fmt.Errorf("pong says %q: %w", text, err)
		}
	}
	return clock, s, nil
}

// PingBedrock asks the server at addr ("host:port") for its status, as the
// server list of Minecraft Bedrock Edition does. It asks again every half
// second until an answer comes, and gives up when ctx ends or after 10 s.
func PingBedrock(ctx context.Context, addr string) (Status, time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "udp", addr)
	if err != nil {
		return Status{}, 0, fmt.Errorf("ping: %w", err)
	}
	defer conn.Close()

	// The clock is the player's own business; counted from here it tells which ping was answered.
	started, guid := time.Now(), rand.Uint64()
	buf := make([]byte, 2048)
	for ctx.Err() == nil {
		if _, err := conn.Write(appendPing(nil, uint64(time.Since(started)), guid)); err != nil {
			return Status{}, 0, fmt.Errorf("ping %s: %w", addr, err)
		}
		if err := conn.SetReadDeadline(time.Now().Add(pingInterval)); err != nil {
			return Status{}, 0, fmt.Errorf("ping %s: %w", addr, err)
		}
		n, err := conn.Read(buf)
		if timeout := net.Error(nil); errors.As(err, &timeout) && timeout.Timeout() {
			continue
		}
		if err != nil {
			return Status{}, 0, fmt.Errorf("ping %s: %w", addr, err)
		}
		clock, status, err := parsePong(buf[:n])
		if err != nil {
			return Status{}, 0, fmt.Errorf("ping %s: %w", addr, err)
		}
		return status, time.Since(started) - time.Duration(clock), nil
	}
	return Status{}, 0, fmt.Errorf("ping %s: no answer: %w", addr, ctx.Err())
}
