module asyncio.bench/servers

go 1.19
