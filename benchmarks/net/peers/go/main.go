// SPDX-License-Identifier: MIT

// The servers in Go with its standard library and GOMAXPROCS(1): a goroutine a connection. The modes
// are those of ../../load.cpp.
package main

import (
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"runtime"
	"strings"
)

const (
	room     = 64 * 1024
	sinkUnit = 16 * 1024 * 1024
)

func echo(connection net.Conn) {
	data := make([]byte, room)
	for {
		length, err := connection.Read(data)
		if err != nil {
			return
		}
		if _, err := connection.Write(data[:length]); err != nil {
			return
		}
	}
}

func sink(connection net.Conn) {
	data := make([]byte, room)
	received := 0
	for {
		length, err := connection.Read(data)
		if err != nil {
			return
		}
		received += length
		if received >= sinkUnit {
			received -= sinkUnit
			connection.Write([]byte{'.'})
		}
	}
}

func source(connection net.Conn) {
	data := make([]byte, room)
	for i := range data {
		data[i] = byte(i)
	}
	for {
		if _, err := connection.Write(data); err != nil {
			return
		}
	}
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func serve(mode string, certificate string) {
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	check(err)
	fmt.Println(listener.Addr().(*net.TCPAddr).Port)
	if strings.HasPrefix(mode, "tls") {
		pair, err := tls.LoadX509KeyPair(certificate, certificate)
		check(err)
		listener = tls.NewListener(listener, &tls.Config{Certificates: []tls.Certificate{pair}})
	}
	handle := echo
	if strings.HasSuffix(mode, "sink") {
		handle = sink
	} else if strings.HasSuffix(mode, "source") {
		handle = source
	}
	for {
		connection, err := listener.Accept()
		check(err)
		go func() {
			defer connection.Close()
			handle(connection)
		}()
	}
}

func datagrams() {
	socket, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	check(err)
	fmt.Println(socket.LocalAddr().(*net.UDPAddr).Port)
	data := make([]byte, 2048)
	for {
		length, from, err := socket.ReadFromUDPAddrPort(data)
		check(err)
		_, err = socket.WriteToUDPAddrPort(data[:length], from)
		check(err)
	}
}

func main() {
	runtime.GOMAXPROCS(1)
	switch os.Args[1] {
	case "--modes":
		fmt.Println("streams sink source tls tls_sink tls_source udp no_instructions")
	case "udp":
		datagrams()
	default:
		certificate := ""
		if len(os.Args) > 2 {
			certificate = os.Args[2]
		}
		serve(os.Args[1], certificate)
	}
}
