package main

// The server's own key pair, $HOME/.ollama/id_ed25519, in OpenSSH's format: without a writable HOME
// the server does not start.

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

func sshString(b *bytes.Buffer, data []byte) {
	_ = binary.Write(b, binary.BigEndian, uint32(len(data)))
	b.Write(data)
}

func sshPublic(key ed25519.PublicKey) []byte {
	var b bytes.Buffer
	sshString(&b, []byte("ssh-ed25519"))
	sshString(&b, key)
	return b.Bytes()
}

func sshPrivate(key ed25519.PrivateKey, public []byte) []byte {
	check := make([]byte, 4)
	_, _ = rand.Read(check)
	var inner bytes.Buffer
	inner.Write(check)
	inner.Write(check)
	inner.Write(public)
	sshString(&inner, key)
	sshString(&inner, nil)
	for pad := byte(1); inner.Len()%8 != 0; pad++ {
		inner.WriteByte(pad)
	}
	var b bytes.Buffer
	b.WriteString("openssh-key-v1\x00")
	sshString(&b, []byte("none"))
	sshString(&b, []byte("none"))
	sshString(&b, nil)
	_ = binary.Write(&b, binary.BigEndian, uint32(1))
	sshString(&b, public)
	sshString(&b, inner.Bytes())
	return pem.EncodeToMemory(&pem.Block{Type: "OPENSSH PRIVATE KEY", Bytes: b.Bytes()})
}

func ensureKeypair() error {
	home, err := os.UserHomeDir()
	if err != nil {
		return err
	}
	path := filepath.Join(home, ".ollama", "id_ed25519")
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	fmt.Printf("Couldn't find '%s'. Generating new private key.\n", path)
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("could not create directory %w", err)
	}
	blob := sshPublic(public)
	if err := os.WriteFile(path, sshPrivate(private, blob), 0o600); err != nil {
		return err
	}
	line := "ssh-ed25519 " + base64.StdEncoding.EncodeToString(blob)
	if err := os.WriteFile(path+".pub", []byte(line+"\n"), 0o644); err != nil {
		return err
	}
	fmt.Printf("Your new public key is: \n\n%s\n\n", line)
	return nil
}
