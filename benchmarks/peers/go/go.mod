module asyncio.bench/peer

go 1.19
