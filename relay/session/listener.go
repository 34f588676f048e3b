package session

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/gorilla/websocket"

	"github.com/eclitunnel/eclitunnel/internal/channel"
	"github.com/eclitunnel/eclitunnel/internal/netaddr"
	"github.com/eclitunnel/eclitunnel/relay/seal"
	"github.com/eclitunnel/eclitunnel/relay/tcpstream"
	"github.com/eclitunnel/eclitunnel/relay/udptunnel"
	"github.com/eclitunnel/eclitunnel/relay/wire"
)

// maxHeader bounds the header of a request, a ticket of about 600 bytes in it.
const maxHeader = 8 << 10

// secretHash is by what a link's secret is looked up: comparing secrets
// themselves would tell by its time how much of a guess was right.
type secretHash [sha256.Size]byte

func newSecret() (string, secretHash) {
	secret := rand.Text() // 130 random bits.
	return secret, sha256.Sum256([]byte(secret))
}

// listenerOptions are what a listener uses of its owner.
type listenerOptions struct {
	channel      channel.Options // Of links.
	plainStreams bool
	limits       Limits
	identity     *Identity
	tickets      *ticketVerifier
	registry     *registry
	newLink      func(t ticket, from netip.Addr, resumes string, can capacity, c *channel.Conn) *link
	counters     *counters
	work         *sync.WaitGroup
	log          *slog.Logger
}

// listener accepts links and data connections.
type listener struct {
	o    listenerOptions
	http *http.Server

	links, streams, datagrams websocket.Upgrader

	unauthenticated *unauthenticated
	known           knownSources   // Sources of links.
	pending         sync.WaitGroup // Connections that net/http serves.
}

func newListener(o listenerOptions) *listener {
	l := &listener{o: o, unauthenticated: newUnauthenticated(o.limits.Unauthenticated)}
	// Agents are no browsers: a request that comes from a page is refused, which
	// the upgraders do by its Origin.
	l.links = websocket.Upgrader{Subprotocols: []string{wire.Subprotocol}}
	l.datagrams = websocket.Upgrader{
		Subprotocols: []string{wire.SubprotocolRatchet, wire.SubprotocolSplit, wire.Subprotocol},
		// One of its own: that of net/http would keep the rest of it in memory.
		ReadBufferSize:  udptunnel.ReadBufferSize,
		WriteBufferSize: udptunnel.WriteBufferSize,
		WriteBufferPool: &udptunnel.WriteBuffers,
	}
	l.streams = l.datagrams
	l.streams.Subprotocols = []string{wire.Subprotocol}
	if o.plainStreams {
		l.streams.Subprotocols = []string{wire.SubprotocolPlain, wire.Subprotocol}
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+wire.PathLink, l.serveLink)
	mux.HandleFunc("GET "+wire.PathData, l.serveData)
	l.http = &http.Server{
		Handler:           mux,
		ReadHeaderTimeout: o.limits.Handshake, // Of the TLS handshake too.
		ReadTimeout:       o.limits.Handshake,
		WriteTimeout:      o.limits.Handshake,
		MaxHeaderBytes:    maxHeader,
		ConnState:         l.count,
		ErrorLog:          slog.NewLogLogger(o.log.Handler(), slog.LevelDebug),
		TLSConfig: &tls.Config{
			MinVersion: tls.VersionTLS13,
			GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
				return &o.identity.current().certificate, nil
			},
			NextProtos: []string{"http/1.1"}, // WebSockets are upgraded from nothing else.
		},
		TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){},
	}
	// A connection is upgraded by its first request or not at all.
	l.http.SetKeepAlivesEnabled(false)
	return l
}

func (l *listener) serve(on net.Listener) error {
	err := l.http.ServeTLS(tcpstream.NewListener(on), "", "")
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("accept links on %s: %w", on.Addr(), err)
}

// close ends the listener and the connections that are not upgraded; wait, to
// be called after serve has returned, waits for them.
func (l *listener) close() { _ = l.http.Close() }
func (l *listener) wait()  { l.pending.Wait() }

// count bounds the connections that have not been upgraded: an upgrade takes a
// ticket or secret. Sources that hold a link, or did lately, have room of their own: a
// flood keeps them neither from linking again nor from opening data connections.
func (l *listener) count(c net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		l.pending.Add(1)
		now := time.Now()
		l.unauthenticated.add(c, l.known.has(netaddr.OfTCP(c.RemoteAddr()).Addr(), now), now)
	case http.StateHijacked, http.StateClosed:
		l.unauthenticated.remove(c)
		l.pending.Done()
	}
}

// serveLink accepts a link and serves it until it ends.
func (l *listener) serveLink(w http.ResponseWriter, r *http.Request) {
	if !speaks(w, r) {
		return
	}
	t, err := l.o.tickets.verify(bearer(r))
	if err == nil {
		err = l.o.registry.admit(r.Context(), t)
	}
	if err != nil {
		l.o.log.Debug("link refused", slog.String("from", r.RemoteAddr), slog.Any("error", err))
		status := http.StatusUnauthorized
		if errors.Is(err, errOff) {
			status = http.StatusServiceUnavailable
		}
		http.Error(w, "the ticket is not accepted", status)
		return
	}
	if l.o.counters.links.Add(1) > int64(l.o.limits.Links) {
		l.o.counters.links.Add(-1)
		http.Error(w, "the tunnel server has as many links as it takes", http.StatusServiceUnavailable)
		return
	}
	query := r.URL.Query()
	from, resumes := r.RemoteAddr, query.Get(wire.SessionParam)
	can := capacity{streams: number(query, wire.StreamsParam), flows: number(query, wire.FlowsParam)}
	l.upgrade(&l.links, w, r, func() { l.o.counters.links.Add(-1) }, func(ws *websocket.Conn) {
		options := l.o.channel
		options.MaxMessage = wire.MaxLinkMessage
		remote := netaddr.OfTCP(ws.RemoteAddr()).Addr()
		l.known.enter(remote)
		defer func() { l.known.leave(remote, time.Now()) }()
		address := peerAddress(remote, netaddr.OfTCP(ws.LocalAddr()).Addr())
		l.o.newLink(t, address, resumes, can, channel.New(ws, options)).serve(from)
	})
}

// number returns a parameter of a query; 0: it is absent, or no number.
func number(query url.Values, name string) int {
	n, _ := strconv.ParseUint(query.Get(name), 10, 31)
	return int(n)
}

// upgrade answers with an upgrade and has serve use the WebSocket, and release
// called after it or instead of it. It does not wait for them: as long as a
// handler runs, net/http holds its request and buffers, several times what an
// idle player takes otherwise.
func (l *listener) upgrade(u *websocket.Upgrader, w http.ResponseWriter, r *http.Request, release func(), serve func(*websocket.Conn)) {
	// Before the upgrade, after which net/http forgets the connection.
	l.o.work.Add(1)
	ws, err := u.Upgrade(w, r, nil)
	if err != nil { // Answered by the upgrader.
		release()
		l.o.work.Done()
		return
	}
	go func() {
		defer l.o.work.Done()
		defer release()
		serve(ws)
	}()
}

// serveData accepts a data connection and serves it until it ends.
func (l *listener) serveData(w http.ResponseWriter, r *http.Request) {
	if !speaks(w, r) {
		return
	}
	link := l.o.registry.withSecret(sha256.Sum256([]byte(bearer(r))))
	if link == nil {
		http.Error(w, "the link's secret is not known", http.StatusUnauthorized)
		return
	}
	kind := wire.Kind(r.URL.Query().Get(wire.KindParam))
	if !kind.Valid() {
		http.Error(w, "kind is stream or datagram", http.StatusBadRequest)
		return
	}
	var udp *udptunnel.ServerSession
	if kind == wire.KindDatagram {
		if udp = link.udpSessionNamed(r.URL.Query().Get(wire.SessionParam)); udp == nil {
			http.Error(w, "the UDP session is not known", http.StatusNotFound)
			return
		}
		l.openPath(udp, r)
	}
	if !link.pool.reserve() {
		http.Error(w, "the tunnel client has as many data connections as it may", http.StatusServiceUnavailable)
		return
	}
	upgrader := &l.streams
	if kind == wire.KindDatagram {
		upgrader = &l.datagrams
	}
	l.upgrade(upgrader, w, r, link.pool.release, func(ws *websocket.Conn) {
		l.o.counters.handshakes.Add(1)
		l.o.counters.dataConnections.Add(1)
		defer l.o.counters.dataConnections.Add(-1)
		if udp != nil {
			link.serveDatagrams(ws, udp)
		} else {
			link.serveStreams(ws)
		}
	})
}

// openPath opens a UDP session's sealed path with the keys of a data connection.
func (l *listener) openPath(udp *udptunnel.ServerSession, r *http.Request) {
	if r.TLS == nil {
		return
	}
	offered, export := websocket.Subprotocols(r), seal.Export
	ratchet := slices.Contains(offered, wire.SubprotocolRatchet)
	if ratchet {
		export = seal.ExportRatchet
	}
	keys, err := export(r.TLS)
	if err != nil {
		l.o.log.Warn("no keys for sealed packets", slog.Any("error", err))
		return
	}
	udp.OpenPath(keys, ratchet || slices.Contains(offered, wire.SubprotocolSplit))
}

// speaks reports whether the peer speaks this version of the protocol, and answers
// it where it does not.
func speaks(w http.ResponseWriter, r *http.Request) bool {
	if slices.Contains(websocket.Subprotocols(r), wire.Subprotocol) {
		return true
	}
	http.Error(w, "this tunnel server speaks the WebSocket subprotocol "+wire.Subprotocol, http.StatusBadRequest)
	return false
}

func bearer(r *http.Request) string {
	token, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	return token
}
