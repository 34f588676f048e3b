// Package pacing keeps the agent's own transfers from filling the queue of a home
// uplink, where every game's packets would wait behind them.
//
// A dial goes in ([Pacer.Dialer]) and comes out as one whose TCP connections are
// paced until they are closed. [Pacer.Run] reads what the kernel measures of those
// connections (TCP_INFO), a governor for each tunnel server's address derives the
// rate that leaves no standing queue, and the sockets are limited to it
// (SO_MAX_PACING_RATE). Run is the only goroutine, and its caller owns it. On
// systems other than Linux the package does nothing.
package pacing
